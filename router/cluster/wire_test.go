package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"parley/parser/jid"
	"parley/router/channel"
	"parley/router/channel/nats"
	"parley/router/sessions"
)

// later encodes as a later release does: with fields that this one does not know,
// and envelopes that it must not overlook in a version that it does not read.
func later(essential func(*channel.Envelope) bool) func(dst []byte, batch []*channel.Envelope) []byte {
	return func(dst []byte, batch []*channel.Envelope) []byte {
		for _, e := range batch {
			one := append(channel.Encode(nil, e), "fields of a later release"...)
			if essential(e) {
				one[0], one[1] = channel.WireVersion+1, 200
			}
			dst = append(binary.AppendUvarint(dst, uint64(len(one))), one...)
		}
		return dst
	}
}

func nothing(*channel.Envelope) bool       { return false }
func fullEnvelopes(*channel.Envelope) bool { return true }

// Of two releases side by side the older one takes what it understands of the newer
// one's, and the newer one everything.
func TestReliability37ReleasesSideBySide(t *testing.T) {
	w := newWorld(t)
	older, newer := w.enter("older"), w.enter("newer")
	newer.encode = later(nothing)
	for _, d := range []struct{ from, to *member }{{newer, older}, {older, newer}} {
		juliet := d.to.bind(1, "juliet@localhost/"+d.to.opt.Name)
		e := message(t, "romeo@localhost/orchard", juliet.JID.String())
		e.To = []sessions.Ref{juliet}
		end := &channel.Envelope{Kind: channel.Close, To: []sessions.Ref{juliet}, Reason: "conflict"}
		if err := d.from.Streamers(d.from.streamer).Send(t.Context(), []*channel.Envelope{e, end}); err != nil {
			t.Fatal(err)
		}
		if got := d.to.router.next(t); string(got.Raw) != string(e.Raw) || got.Pending != e.Pending || got.To[0] != juliet {
			t.Errorf("%s got %+v", d.to.opt.Name, got)
		}
		if got := d.to.streamer.next(t); got.Kind != channel.Close || got.Reason != "conflict" {
			t.Errorf("%s got %+v", d.to.opt.Name, got)
		}
	}
	romeo := sessions.Ref{Node: "newer", Conn: 9, JID: jid.MustParse("romeo@localhost/orchard")}
	sight := []*channel.Envelope{
		{Kind: channel.Change, Session: sessions.Ref{JID: romeo.JID.Bare()}},
		{Kind: channel.Bind, Session: romeo, State: &sessions.State{Kind: sessions.Client, BoundAt: time.Now()}},
	}
	if err := older.adopt(t.Context(), peer(newer.members.Self()), later(nothing)(nil, sight)); err != nil || !older.sees(t, romeo) {
		t.Errorf("a session of a newer node is not seen: %v", err)
	}
}

// What the older one does not understand comes back, with everything that travelled
// along, and the older one looks itself for what is pending.
func TestReliability37NewerEnvelopesComeBack(t *testing.T) {
	w := newWorld(t)
	older, newer := w.enter("older"), w.enter("newer")
	juliet := older.bind(1, "juliet@localhost/balcony")
	reminded := make(chan string, 10)
	older.On(TopicMissed, func(key string) { reminded <- key })
	first, second := message(t, "romeo@localhost/orchard", juliet.JID.String()), message(t, "romeo@localhost/orchard", juliet.JID.String())
	first.To, second.To, second.Pending = []sessions.Ref{juliet}, []sessions.Ref{juliet}, 8
	newer.encode = later(func(e *channel.Envelope) bool { return e.Pending == second.Pending })
	if err := newer.Streamers(newer.streamer).Send(t.Context(), []*channel.Envelope{first, second}); err != nil {
		t.Fatal(err)
	}
	for _, row := range []int64{first.Pending, second.Pending} {
		if got := newer.parser.next(t); got.Kind != channel.Undelivered || got.Session != juliet || got.Pending != row {
			t.Errorf("came back as %+v", got)
		}
	}
	select {
	case key := <-reminded:
		if key != "juliet@localhost" {
			t.Errorf("reminded of %q", key)
		}
	case <-time.After(soon):
		t.Error("nobody is reminded")
	}
	if len(older.router.got) > 0 {
		t.Errorf("and one arrived: %+v", older.router.next(t))
	}
	newer.encode = later(nothing) // the pipe goes on
	third := message(t, "romeo@localhost/orchard", juliet.JID.String())
	third.To = []sessions.Ref{juliet}
	if err := newer.Streamers(newer.streamer).Send(t.Context(), []*channel.Envelope{third}); err != nil {
		t.Fatal(err)
	}
	if got := older.router.next(t); got.To[0] != juliet {
		t.Errorf("got %+v", got)
	}
}

// Nothing that is no envelope, no sight and no notice is taken for handled.
func TestWhatIsNotUnderstoodIsRefused(t *testing.T) {
	w := newWorld(t)
	a, b := w.enter("a"), w.enter("b")
	stranger := later(fullEnvelopes)(nil, []*channel.Envelope{{Kind: channel.Handled}})
	for port, payloads := range map[string][][]byte{
		portStreamer: {stranger, {200, 1}}, portRouter: {stranger, {200, 1}},
		portSessions: {stranger, {200, 1}, {}}, portNotices: {{200, 1}, {}},
	} {
		for _, p := range payloads {
			told := make(chan error, 1)
			if err := b.bus.Send(t.Context(), "a", port, p, func(err error) { told <- err }); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-told:
				if !errors.Is(err, nats.ErrRefused) {
					t.Errorf("%s: %x: %v", port, p, err)
				}
			case <-time.After(soon):
				t.Fatalf("%s: %x: nobody answers", port, p)
			}
		}
	}
	if len(a.router.got)+len(a.streamer.got) > 0 {
		t.Error("something arrived")
	}
}

// ended is a stage whose channel is closed.
type ended struct{}

func (ended) Send(context.Context, []*channel.Envelope) error { return channel.ErrClosed }

// What comes for a stage that has ended goes back too.
func TestEndedStageGivesBack(t *testing.T) {
	w := newWorld(t)
	a := w.enter("a")
	if err := a.arrive(ended{})(t.Context(), peer(a.members.Self()), channel.EncodeBatch(nil, []*channel.Envelope{{Kind: channel.Handled}})); !errors.Is(err, nats.ErrRefused) {
		t.Errorf("got %v", err)
	}
	if err := a.arrive(ended{})(t.Context(), peer(a.members.Self()), nil); err != nil {
		t.Errorf("nothing, but: %v", err)
	}
}
