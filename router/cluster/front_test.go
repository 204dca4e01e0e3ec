package cluster

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"parley/parser/jid"
	"parley/router/channel"
	"parley/router/channel/nats"
	"parley/router/sessions"
)

var (
	frontServers = []string{"streamer", "parser"}
	coreServers  = []string{"parser", "processor", "router", Reachable}
)

// socket is a stream of the front.
func (m *member) socket(n uint64, at string) sessions.Ref {
	return sessions.Ref{Node: m.opt.Name, Conn: sessions.Conn(m.Number(), n), JID: jid.MustParse(at)}
}

// at is the same stream as the core and everybody else knows it.
func at(core *member, ref sessions.Ref) sessions.Ref {
	ref.Node = core.opt.Name
	return ref
}

// bound lets the core bind what a front has a socket of.
func (m *member) bound(ref sessions.Ref) {
	m.registry.Bind(ref, sessions.State{Kind: sessions.Client, BoundAt: time.Now()})
	m.registry.Show(ref)
}

// awaitCore waits until the front is attached to the core.
func (m *member) awaitCore(t *testing.T, core *member) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	name, err := m.Core(ctx)
	if err != nil || name != core.opt.Name {
		t.Fatalf("core %q, %v", name, err)
	}
}

// A front's sessions are its core's for everybody else, and each way leads to
// the front that has the socket.
func TestFrontsAndTheirCore(t *testing.T) {
	w := newWorld(t)
	core := w.enterAs("core", nil, coreServers...)
	f, g := w.enterAs("f", nil, frontServers...), w.enterAs("g", nil, frontServers...)
	other := w.enter("other")
	f.awaitCore(t, core)
	g.awaitCore(t, core)
	romeo, juliet := f.socket(1, "romeo@localhost/orchard"), g.socket(1, "juliet@localhost/balcony")

	if err := f.ToCore("processor").Send(t.Context(), []*channel.Envelope{{Kind: channel.Bind, Session: romeo, State: &sessions.State{}}}); err != nil {
		t.Fatal(err)
	}
	if got := core.processor.next(t); got.Kind != channel.Bind || got.Session != at(core, romeo) {
		t.Fatalf("the core got %+v", got)
	}
	core.bound(at(core, romeo))
	core.bound(at(core, juliet))
	if !other.sees(t, at(core, romeo)) || !f.sees(t, romeo) || !f.sees(t, at(core, juliet)) || !g.sees(t, juliet) {
		t.Error("sessions are not seen as they should be")
	}

	// From the core to both fronts, and to nobody else.
	e := message(t, "mercutio@localhost/x", "romeo@localhost")
	e.To = []sessions.Ref{at(core, romeo), at(core, juliet)}
	done := &channel.Envelope{Kind: channel.Handled, Session: at(core, romeo), Seq: 3}
	if err := core.Streamers(nil).Send(t.Context(), []*channel.Envelope{e, done}); err != nil {
		t.Fatal(err)
	}
	if got := f.streamer.next(t); got.Kind != channel.Deliver || len(got.To) != 1 || got.To[0] != romeo {
		t.Errorf("f got %+v", got)
	}
	if got := f.streamer.next(t); got.Kind != channel.Handled || got.Session != romeo || got.Seq != 3 {
		t.Errorf("f got %+v", got)
	}
	if got := g.streamer.next(t); got.Kind != channel.Deliver || len(got.To) != 1 || got.To[0] != juliet {
		t.Errorf("g got %+v", got)
	}

	// From another node: by way of the core's router, then to the front.
	e = message(t, "mercutio@localhost/x", "juliet@localhost")
	e.To = []sessions.Ref{at(core, juliet)}
	if err := other.Streamers(other.streamer).Send(t.Context(), []*channel.Envelope{e}); err != nil {
		t.Fatal(err)
	}
	arrived := core.router.next(t)
	if err := core.Streamers(nil).Send(t.Context(), []*channel.Envelope{arrived}); err != nil {
		t.Fatal(err)
	}
	if got := g.streamer.next(t); got.Kind != channel.Deliver || got.To[0] != juliet || got.Pending != 7 {
		t.Errorf("g got %+v", got)
	}
}

// A front cannot speak for sockets that it does not have.
func TestReliability27AFrontSpeaksForItsOwn(t *testing.T) {
	w := newWorld(t)
	core := w.enterAs("core", nil, coreServers...)
	f, g := w.enterAs("f", nil, frontServers...), w.enterAs("g", nil, frontServers...)
	f.awaitCore(t, core)
	stolen := f.socket(1, "romeo@localhost/orchard")
	stolen.Conn = g.socket(1, "romeo@localhost/orchard").Conn
	own := f.socket(2, "juliet@localhost/balcony")
	for _, ref := range []sessions.Ref{stolen, own} {
		if err := f.ToCore("processor").Send(t.Context(), []*channel.Envelope{{Kind: channel.Unbind, Session: ref}}); err != nil {
			t.Fatal(err)
		}
	}
	if got := core.processor.next(t); got.Session != at(core, own) {
		t.Fatalf("taken: %+v", got)
	}
}

// A node cannot speak to sockets of a front that is not its own.
func TestReliability27AFrontListensToItsCore(t *testing.T) {
	w := newWorld(t)
	core := w.enterAs("core", nil, coreServers...)
	f := w.enterAs("f", nil, frontServers...)
	f.awaitCore(t, core)
	stranger := w.enter("stranger")
	romeo := f.socket(1, "romeo@localhost/orchard")
	said := channel.EncodeBatch(nil, []*channel.Envelope{{Kind: channel.Close, To: []sessions.Ref{at(stranger, romeo)}, Reason: "conflict"}})
	told := make(chan error, 1)
	if err := stranger.bus.Send(t.Context(), "f", portStreamer, said, func(err error) { told <- err }); err != nil {
		t.Fatal(err)
	}
	if err := <-told; !errors.Is(err, nats.ErrRefused) {
		t.Errorf("taken: %v", err)
	}
	if len(f.streamer.got) > 0 {
		t.Errorf("its socket got %+v", f.streamer.next(t))
	}
}

// A front without a parser leaves that to its core, too.
func TestAFrontMayHaveSocketsAlone(t *testing.T) {
	w := newWorld(t)
	core := w.enterAs("core", nil, coreServers...)
	f := w.enterAs("f", nil, "streamer")
	f.awaitCore(t, core)
	romeo := f.socket(1, "romeo@localhost/orchard")
	raw := "<message to='juliet@localhost' type='chat'><body>x</body></message>"
	if err := f.ToCore("parser").Send(t.Context(), []*channel.Envelope{{Kind: channel.Stanza, Session: romeo, Seq: 1, Raw: []byte(raw)}}); err != nil {
		t.Fatal(err)
	}
	if got := core.parser.next(t); got.Session != at(core, romeo) || string(got.Raw) != raw {
		t.Errorf("the core got %+v", got)
	}
}

// What a front that stalls has to be told all the same comes when it is back; what
// the house deals with itself does not come twice.
func TestReliability30AStalledFrontIsOwed(t *testing.T) {
	w := newWorld(t)
	core := w.enterAs("core", nil, coreServers...)
	f := w.enterAs("f", nil, frontServers...)
	f.awaitCore(t, core)
	romeo := at(core, f.socket(1, "romeo@localhost/orchard"))
	deliver := func(id string, class channel.Class, row int64, solicited bool) *channel.Envelope {
		return &channel.Envelope{Kind: channel.Deliver, Raw: []byte("<x id='" + id + "'/>"), To: []sessions.Ref{romeo}, Class: class, Pending: row, Solicited: solicited}
	}
	core.owes("f", []*channel.Envelope{
		{Kind: channel.Handled, Session: romeo, Seq: 7},
		deliver("presence", channel.Presence, 0, false),
		deliver("pending", channel.Urgent, 5, false),
		deliver("asked for", channel.Urgent, 0, true),
		{Kind: channel.Close, To: []sessions.Ref{romeo}, Reason: "conflict"},
	})
	for _, want := range []channel.Kind{channel.Handled, channel.Deliver, channel.Close} {
		got := f.streamer.next(t)
		if got.Kind != want || want == channel.Deliver && string(got.Raw) != "<x id='asked for'/>" {
			t.Errorf("got %v %s, want %v", got.Kind, got.Raw, want)
		}
	}
	if n := len(core.fronts.owed); n != 0 {
		t.Errorf("something is owed to %d fronts", n)
	}
	for range maxOwed + 10 {
		core.fronts.owe("f", deliver("too much", channel.Urgent, 0, true))
	}
	if n := len(core.fronts.take("f")); n != maxOwed {
		t.Errorf("%d are kept", n)
	}
}

// Sessions whose stanzas a core of an older release cannot read end: they must not
// go on without them.
func TestReliability37AFrontOfALaterRelease(t *testing.T) {
	w := newWorld(t)
	core := w.enterAs("core", nil, coreServers...)
	f := w.enterAs("f", nil, frontServers...)
	f.awaitCore(t, core)
	romeo := f.socket(1, "romeo@localhost/orchard")
	f.encode = later(fullEnvelopes)
	if err := f.ToCore("processor").Send(t.Context(), []*channel.Envelope{{Kind: channel.Unbind, Session: romeo}}); err != nil {
		t.Fatal(err)
	}
	if got := f.streamer.next(t); got.Kind != channel.Close || len(got.To) != 1 || got.To[0] != romeo {
		t.Errorf("the socket got %+v", got)
	}
	f.encode = later(nothing) // fields that the core does not know it skips
	if err := f.ToCore("processor").Send(t.Context(), []*channel.Envelope{{Kind: channel.Unbind, Session: romeo}}); err != nil {
		t.Fatal(err)
	}
	if got := core.processor.next(t); got.Session != at(core, romeo) {
		t.Errorf("the core got %+v", got)
	}
}

// Sessions end with the front that has their sockets, those of others do not;
// and whoever resumes them may have them.
func TestReliability32AFrontIsLost(t *testing.T) {
	w := newWorld(t)
	core := w.enterAs("core", nil, coreServers...)
	f, g := w.enterAs("f", nil, frontServers...), w.enterAs("g", nil, frontServers...)
	f.awaitCore(t, core)
	romeo, juliet := at(core, f.socket(1, "romeo@localhost/orchard")), at(core, g.socket(1, "juliet@localhost/balcony"))
	core.bound(romeo)
	core.bound(juliet)
	f.stop()
	slot := sessions.SlotOf(romeo.Conn) // first whoever is about to begin there
	if got := core.processor.next(t); got.Kind != channel.Unbind || !got.Session.JID.IsZero() || sessions.SlotOf(got.Session.Conn) != slot || got.Reason != channel.FrontLost {
		t.Fatalf("the core got %+v", got)
	}
	if got := core.processor.next(t); got.Kind != channel.Unbind || got.Session != romeo || got.Reason != channel.FrontLost {
		t.Fatalf("the core got %+v", got)
	}
	// What is for the lost front's sockets comes back; the other front is reached.
	e := message(t, "mercutio@localhost/x", "romeo@localhost")
	e.To = []sessions.Ref{romeo, juliet}
	if err := core.Streamers(nil).Send(t.Context(), []*channel.Envelope{e}); err != nil {
		t.Fatal(err)
	}
	if got := core.parser.next(t); got.Kind != channel.Undelivered || got.Session != romeo {
		t.Errorf("came back: %+v", got)
	}
	if got := g.streamer.next(t); got.Kind != channel.Deliver || got.To[0].JID != juliet.JID {
		t.Errorf("g got %+v", got)
	}
}

// A front that has lost its core has lost its sessions, and finds another core.
func TestReliability32ACoreIsLost(t *testing.T) {
	w := newWorld(t)
	one := w.enterAs("one", nil, coreServers...)
	attached := make(chan struct{}, 10)
	f := w.enterAs("f", func(m *member) { m.Attached(func() { attached <- struct{}{} }) }, frontServers...)
	f.awaitCore(t, one)
	<-attached
	romeo := f.socket(1, "romeo@localhost/orchard")
	one.bound(at(one, romeo))
	if !f.sees(t, romeo) {
		t.Fatal("its own session is not seen")
	}
	one.stop()
	select {
	case <-f.orphaned:
	case <-time.After(soon):
		t.Fatal("not told")
	}
	if _, ok := f.registry.Find(romeo.JID); ok {
		t.Error("a session has outlived its core")
	}
	if err := f.ToCore("processor").Send(t.Context(), []*channel.Envelope{{Kind: channel.Unbind, Session: romeo}}); !errors.Is(err, channel.ErrClosed) {
		t.Errorf("sent to nobody: %v", err)
	}
	two := w.enterAs("two", nil, coreServers...)
	f.awaitCore(t, two)
	<-attached
	if err := f.ToCore("processor").Send(t.Context(), []*channel.Envelope{{Kind: channel.Unbind, Session: romeo}}); err != nil {
		t.Fatal(err)
	}
	if got := two.processor.next(t); got.Session != at(two, romeo) {
		t.Errorf("the new core got %+v", got)
	}
}

// A front that hears nothing any more waits for a core that acknowledges nothing; one
// that is fenced does not: its sessions are others' by then.
func TestReliability32AFencedFrontDoesNotWait(t *testing.T) {
	w := newWorld(t)
	one := w.enterAs("one", nil, coreServers...)
	f := w.enterAs("f", nil, frontServers...)
	f.awaitCore(t, one)
	w.nats.Shutdown()
	end := &channel.Envelope{Kind: channel.Unbind, Session: f.socket(1, "romeo@localhost/orchard")}
	sent := make(chan error, 1)
	go func() {
		for { // until the window is full, and the core counts as stalled
			if err := f.ToCore("processor").Send(t.Context(), []*channel.Envelope{end}); err != nil {
				sent <- err
				return
			}
		}
	}()
	core := f.front.core.Load()
	if err := f.bear(t.Context(), core); err != nil {
		t.Fatalf("a core that is only slow: %v", err)
	}
	f.members.lease.lose(overByDatabase)
	select {
	case err := <-sent:
		if !errors.Is(err, channel.ErrLost) {
			t.Errorf("sent: %v", err)
		}
	case <-time.After(soon):
		t.Error("a fenced front waits for its core")
	}
}

// A front asks its core; an answer that is an error is told from none.
func TestCalls(t *testing.T) {
	w := newWorld(t)
	asked := make(chan string, 10)
	core := w.enterAs("core", func(m *member) {
		m.Answer("upper", func(_ context.Context, from string, payload []byte) ([]byte, error) {
			asked <- from
			if len(payload) == 0 {
				return nil, errors.New("nothing to do")
			}
			return []byte(strings.ToUpper(string(payload))), nil
		})
	}, coreServers...)
	f := w.enterAs("f", nil, frontServers...)
	f.awaitCore(t, core)
	if got, err := f.CallCore(t.Context(), "upper", []byte("romeo")); err != nil || string(got) != "ROMEO" || <-asked != "f" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := f.CallCore(t.Context(), "upper", nil); !errors.Is(err, ErrNoAnswer) || !strings.Contains(err.Error(), "nothing to do") {
		t.Errorf("the core's error is %v", err)
	}
	if _, err := f.CallCore(t.Context(), "lower", nil); !errors.Is(err, ErrNoAnswer) || !strings.Contains(err.Error(), "lower") {
		t.Errorf("an unknown question: %v", err)
	}
	if n := len(f.desk.waiting); n != 0 {
		t.Errorf("%d calls are still waited for", n)
	}
}

// Who has just come asks at once, and is answered: the others hear of it before they see
// it in the database.
func TestCallsOfNewcomers(t *testing.T) {
	w := newWorld(t)
	w.enterAs("core", func(m *member) {
		m.Answer("who", func(_ context.Context, from string, _ []byte) ([]byte, error) { return []byte(from), nil })
	}, coreServers...)
	for i := range 4 {
		name := "f" + strconv.Itoa(i)
		f := w.startingAs(name, frontServers...)
		ctx, cancel := context.WithTimeout(t.Context(), soon)
		if got, err := f.Call(ctx, "core", "who", nil); err != nil || string(got) != name {
			t.Errorf("%s is called %q, %v", name, got, err)
		}
		cancel()
	}
}

func FuzzCall(f *testing.F) {
	f.Add(encodeCall(7, "resumption.take", []byte("x")))
	f.Add([]byte{0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		id, text, rest, err := decodeCall(b)
		if err != nil {
			return
		}
		if i, s, r, err := decodeCall(encodeCall(id, text, rest)); err != nil || i != id || s != text || string(r) != string(rest) {
			t.Errorf("%d %q %q, %v", i, s, r, err)
		}
	})
}
