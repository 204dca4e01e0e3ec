package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	natsserver "github.com/nats-io/nats-server/v2/server"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/router/channel"
	"parley/router/channel/nats"
	"parley/router/sessions"
	"parley/storage"
	"parley/storage/storagetest"
)

// soon ends a test in which something does not happen.
const soon = 30 * time.Second

// wall is the machine's clock.
type wall struct{}

func (wall) Now() time.Time { return time.Now() }

func (wall) AfterFunc(d time.Duration, f func()) func() bool { return time.AfterFunc(d, f).Stop }

// intake is a stage of a node: it keeps what arrives.
type intake struct {
	got  chan *channel.Envelope
	shut chan struct{} // not nil: it takes nothing until this is closed
}

func newIntake() *intake { return &intake{got: make(chan *channel.Envelope, 1000)} }

func (i *intake) Send(ctx context.Context, batch []*channel.Envelope) error {
	if i.shut != nil {
		select {
		case <-i.shut:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for _, e := range batch {
		i.got <- e
	}
	return nil
}

func (i *intake) next(t *testing.T) *channel.Envelope {
	t.Helper()
	select {
	case e := <-i.got:
		return e
	case <-time.After(soon):
		t.Fatal("nothing arrives")
		return nil
	}
}

// member is a node of a test's cluster.
type member struct {
	*Node
	w                                   *world
	stop                                func()
	registry                            *sessions.Registry
	streamer, parser, processor, router *intake
	orphaned                            chan struct{}
}

// world is what nodes have in common.
type world struct {
	*testing.T
	db   storage.DB
	url  string
	nats *natsserver.Server
}

func newWorld(t *testing.T) *world {
	t.Helper()
	s, err := natsserver.NewServer(&natsserver.Options{Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(soon) {
		t.Fatal("NATS does not start")
	}
	return &world{t, storagetest.Open(t, storagetest.SQLite(t)), s.ClientURL(), s}
}

// enter starts a node that has everything. It ends with the test.
func (w *world) enter(name string) *member {
	w.Helper()
	m := w.starting(name)
	m.begin()
	m.meet()
	return m
}

// starting is a node that has everything and has not begun.
func (w *world) starting(name string) *member {
	w.Helper()
	return w.startingAs(name, "streamer", "parser", "processor", "router")
}

// enterAs starts a node with some of the Servers; prepare is for what comes
// before Begin.
func (w *world) enterAs(name string, prepare func(*member), servers ...string) *member {
	w.Helper()
	m := w.startingAs(name, servers...)
	if prepare != nil {
		prepare(m)
	}
	m.begin()
	m.meet()
	return m
}

func (w *world) startingAs(name string, servers ...string) *member {
	w.Helper()
	m := &member{w: w, registry: sessions.NewRegistry(), streamer: newIntake(), parser: newIntake(), processor: newIntake(), router: newIntake(), orphaned: make(chan struct{}, 10)}
	var err error
	m.Node, err = Enter(w.Context(), NodeOptions{
		Name: name, Version: "test", Servers: servers, DB: w.db,
		NATS: nats.Options{URLs: []string{w.url}, Cluster: "test"}, Lease: 2 * time.Second,
		Registry: m.registry, Clock: wall{}, Log: slog.New(slog.DiscardHandler),
		Orphaned: func(context.Context) { m.orphaned <- struct{}{} },
	})
	if err != nil {
		w.Fatal(err)
	}
	m.stop = sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), soon)
		defer cancel()
		if err := m.End(ctx); err != nil {
			w.Errorf("%s: %v", name, err)
		}
	})
	w.Cleanup(m.stop)
	return m
}

func (m *member) begin() {
	m.w.Helper()
	if err := m.Begin(Links{Streamer: m.streamer, Parser: m.parser, Processor: m.processor, Router: m.router}); err != nil {
		m.w.Fatal(err)
	}
}

func (m *member) meet() {
	m.w.Helper()
	ctx, cancel := context.WithTimeout(m.w.Context(), soon)
	defer cancel()
	if err := m.Met(ctx); err != nil {
		m.w.Fatal(err)
	}
}

// bind binds a session of the node.
func (m *member) bind(conn uint64, at string) sessions.Ref {
	ref := sessions.Ref{Node: m.opt.Name, Conn: conn, JID: jid.MustParse(at)}
	m.registry.Bind(ref, sessions.State{Kind: sessions.Client, BoundAt: time.Now(), Device: fmt.Sprint(conn)})
	m.registry.Show(ref)
	return ref
}

func (m *member) sees(t *testing.T, ref sessions.Ref) bool {
	t.Helper()
	e, ok := m.registry.Find(ref.JID)
	return ok && e.Ref == ref
}

func message(t *testing.T, from, to string) *channel.Envelope {
	t.Helper()
	raw := "<message from='" + from + "' to='" + to + "' type='chat'><body>x</body></message>"
	st, err := stanza.Parse([]byte(raw), stanza.NSClient, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &channel.Envelope{Kind: channel.Deliver, Raw: st.Raw, Stanza: st, Edits: st.Stamp(), Pending: 7}
}

// Who is bound on one node is known on all when Bind returns, and a node that
// comes later is shown everybody before it has met the others.
func TestNodesSeeEachOthersSessions(t *testing.T) {
	w := newWorld(t)
	a, b := w.enter("a"), w.enter("b")
	romeo, juliet := a.bind(1, "romeo@localhost/orchard"), b.bind(1, "juliet@localhost/balcony")
	if !b.sees(t, romeo) || !a.sees(t, juliet) {
		t.Fatal("a session is not seen")
	}
	a.registry.Change(romeo, func(st *sessions.State) { st.Available, st.Priority, st.Replaying = true, 5, true })
	if e, _ := b.registry.Find(romeo.JID); !e.Available || e.Priority != 5 || e.Replaying {
		t.Errorf("seen as %+v", e.State)
	}
	c := w.enter("c")
	if !c.sees(t, romeo) || !c.sees(t, juliet) {
		t.Error("who came late does not see who was there")
	}
	gone := b.registry.Gone(romeo)
	a.registry.Unbind(romeo)
	a.registry.Show(romeo)
	select {
	case <-gone:
	case <-time.After(soon):
		t.Fatal("a session that has ended is still seen")
	}
}

// What is for several nodes' sockets is split; what may have to be held back
// goes through the router of its node.
func TestDeliveriesGoToTheirNodes(t *testing.T) {
	w := newWorld(t)
	a, b := w.enter("a"), w.enter("b")
	here, there := a.bind(1, "juliet@localhost/balcony"), b.bind(2, "juliet@localhost/phone")
	out := a.Streamers(a.streamer)
	e := message(t, "romeo@localhost/orchard", "juliet@localhost")
	e.To = []sessions.Ref{here, there}
	closing := &channel.Envelope{Kind: channel.Close, To: []sessions.Ref{there}, Reason: "conflict", AtOnce: true}
	if err := out.Send(t.Context(), []*channel.Envelope{e, closing}); err != nil {
		t.Fatal(err)
	}
	if got := a.streamer.next(t); len(got.To) != 1 || got.To[0] != here {
		t.Errorf("this node got %v", got.To)
	}
	got := b.router.next(t)
	if len(got.To) != 1 || got.To[0] != there || got.Pending != 7 || string(got.Raw) != string(e.Raw) {
		t.Errorf("the other node got %v of %q", got.To, got.Raw)
	}
	if got := b.streamer.next(t); got.Kind != channel.Close || !got.AtOnce || got.Reason != "conflict" {
		t.Errorf("the other node got %+v", got)
	}
}

// What cannot be handed over comes back, once for each session.
func TestNotHandedOverComesBack(t *testing.T) {
	w := newWorld(t)
	a := w.enter("a")
	e := message(t, "romeo@localhost/orchard", "juliet@localhost")
	gone := sessions.Ref{Node: "gone", Conn: 1, JID: jid.MustParse("juliet@localhost/phone")}
	e.To = []sessions.Ref{gone}
	if err := a.Streamers(a.streamer).Send(t.Context(), []*channel.Envelope{e}); err != nil {
		t.Fatal(err)
	}
	if got := a.parser.next(t); got.Kind != channel.Undelivered || got.Session != gone || got.Pending != 7 {
		t.Errorf("came back as %+v", got)
	}
}

// Nothing reaches the sockets of a node that has lost its lease: it waits in the database
// (reliability row 32).
func TestReliability32NothingComesToTheFenced(t *testing.T) {
	w := newWorld(t)
	a, b := w.enter("a"), w.enter("b")
	to := b.socket(1, "juliet@localhost/phone")
	e := message(t, "romeo@localhost/orchard", "juliet@localhost")
	e.To = []sessions.Ref{to}
	b.members.lease.lose(overByClock)
	if err := a.Streamers(a.streamer).Send(t.Context(), []*channel.Envelope{e}); err != nil {
		t.Fatal(err)
	}
	if got := a.parser.next(t); got.Kind != channel.Undelivered || got.Session != to || got.Pending != 7 {
		t.Errorf("came back as %+v", got)
	}
	if n := len(b.router.got) + len(b.streamer.got); n != 0 {
		t.Errorf("%d envelopes came to who is fenced", n)
	}
}

// Of two sessions that are given one address at the same time the newer one
// stays, on every node the same, and the other one is told.
func TestOneAddressOneSession(t *testing.T) {
	w := newWorld(t)
	a, b := w.enter("a"), w.enter("b")
	at := jid.MustParse("juliet@localhost/balcony")
	begin := time.Now()
	older := sessions.Ref{Node: "a", Conn: 1, JID: at}
	newer := sessions.Ref{Node: "b", Conn: 1, JID: at}
	a.registry.Mirror("a", func(jid.JID) {}) // neither hears of the other in time
	b.registry.Mirror("b", func(jid.JID) {})
	a.registry.Bind(older, sessions.State{Kind: sessions.Client, BoundAt: begin})
	b.registry.Bind(newer, sessions.State{Kind: sessions.Client, BoundAt: begin.Add(time.Millisecond)})
	a.show(at.Bare())
	b.show(at.Bare())
	if !a.sees(t, newer) || !b.sees(t, newer) {
		t.Error("the older session stays")
	}
	if got := a.streamer.next(t); got.Kind != channel.Close || got.To[0] != older {
		t.Errorf("got %+v", got)
	}
}

// The sessions of a node that is gone end, and one node sees to it (reliability
// row 32).
func TestReliability32SessionsOfADeadNodeEndOnce(t *testing.T) {
	const people = 50
	w := newWorld(t)
	a, b, c := w.enter("a"), w.enter("b"), w.enter("c")
	for i := range people {
		c.bind(uint64(i+1), fmt.Sprintf("u%d@localhost/x", i))
	}
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	if err := c.End(ctx); err != nil {
		t.Fatal(err)
	}
	ended := map[jid.JID]int{}
	for len(ended) < people {
		var e *channel.Envelope
		select {
		case e = <-a.processor.got:
			a.registry.Unbind(e.Session)
		case e = <-b.processor.got:
			b.registry.Unbind(e.Session)
		case <-ctx.Done():
			t.Fatalf("%d sessions of %d have ended", len(ended), people)
		}
		if ended[e.Session.JID]++; e.Kind != channel.Unbind || ended[e.Session.JID] > 1 {
			t.Errorf("%s of %s", e.Kind, e.Session.JID)
		}
	}
	for _, m := range []*member{a, b} {
		if err := m.Buried(ctx, "c", 0, jid.MustParse("u0@localhost")); err != nil {
			t.Fatal(err)
		}
		for _, e := range m.registry.On("c") {
			select {
			case <-m.registry.Gone(e.Ref):
			case <-ctx.Done():
				t.Errorf("%s is a ghost", e.JID)
			}
		}
	}
}

// What is told to be forgotten is forgotten everywhere when Tell returns.
func TestNotices(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.enter("a"), w.enter("b"), w.enter("c")
	var mu sync.Mutex
	heard := map[string]int{}
	for _, m := range []*member{a, b, c} {
		m.On("topic", func(key string) {
			mu.Lock()
			defer mu.Unlock()
			heard[m.opt.Name+" "+key]++
		})
	}
	if err := a.Tell(t.Context(), "topic", "juliet@localhost"); err != nil {
		t.Fatal(err)
	}
	silent(t, a, b)
	mu.Lock()
	defer mu.Unlock()
	if len(heard) != 2 || heard["b juliet@localhost"] != 1 || heard["c juliet@localhost"] != 1 {
		t.Errorf("heard %v", heard)
	}
	if err := b.noticed(t.Context(), peer(a.members.Self()), []byte{200, 1}); err == nil {
		t.Error("a notice that is none")
	}
}

// silent lets a node not answer: it is named.
func silent(t *testing.T, from, node *member) {
	t.Helper()
	hold := make(chan struct{})
	defer close(hold)
	reached := make(chan struct{})
	node.On("held", func(string) {
		close(reached)
		<-hold
	})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-reached
		cancel()
	}()
	if err := from.Tell(ctx, "held", "k"); err == nil || !strings.HasPrefix(err.Error(), node.opt.Name) || !strings.Contains(err.Error(), "does not say") {
		t.Errorf("told one that does not answer: %v", err)
	}
}
