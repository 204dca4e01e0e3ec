package channel

import (
	"context"
	"fmt"
	"slices"
	"testing"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/router/sessions"
)

func refs(addresses ...string) (out []sessions.Ref) {
	for i, a := range addresses {
		out = append(out, sessions.Ref{Node: "n", Conn: uint64(i + 1), JID: jid.MustParse(a)})
	}
	return out
}

// What a recipient gets is the same, whether the bytes are shared or its own.
func TestApartIsTheSame(t *testing.T) {
	st, err := stanza.Parse([]byte("<message id='1' to='room@x' x='y'><body>a</body></message>"), stanza.NSClient, nil)
	if err != nil {
		t.Fatal(err)
	}
	st.From = jid.MustParse("room@x/n")
	for splice, want := range map[Splice]string{
		Nobody: "<message from='room@x/n' id='1' x='y'><body>a</body></message>",
		Full:   "<message to='juliet@b/y&amp;z' from='room@x/n' id='1' x='y'><body>a</body></message>",
		Bare:   "<message to='juliet@b' from='room@x/n' id='1' x='y'><body>a</body></message>",
	} {
		e := Spread(sessions.Ref{}, st, splice, refs("juliet@b/y&z", "romeo@b/x"))
		if got := string(e.Rendered(nil, e.To[0].JID)); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		apart := e.Apart()
		if len(apart) != 2 {
			t.Fatalf("%d parts", len(apart))
		}
		one := apart[0]
		if got := string(one.Edits.Render(nil, one.Raw)); got != want || one.Splice != Nobody || !slices.Equal(one.To, e.To[:1]) || one.Stanza.To != splice.Of(e.To[0].JID) {
			t.Errorf("apart: %s to %v, %v", got, one.To, one.Stanza)
		}
	}
}

// A room is quiet for who does not look at it, unless something is said (XEP-0352 §5.1).
func TestClasses(t *testing.T) {
	for raw, want := range map[string]Class{
		"<presence/>":                                 Presence,
		"<presence type='unavailable'/>":              Presence,
		"<presence type='error'/>":                    Urgent,
		"<presence type='subscribe'/>":                Urgent,
		"<message type='groupchat'><body/></message>": Urgent,
		"<message type='groupchat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>": ChatState,
		"<message><subject/></message>": Urgent,
	} {
		st, err := stanza.Parse([]byte(raw), stanza.NSClient, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := Spread(sessions.Ref{}, st, Full, nil).Class; got != want {
			t.Errorf("%s: %d, want %d", raw, got, want)
		}
	}
}

// What is for streams in several lanes keeps its place in each of them.
func TestQueueDividesWhatIsForMany(t *testing.T) {
	const steps = 50
	q := NewQueue(3)
	defer q.Close()
	var all []string
	for i := range 10 {
		all = append(all, fmt.Sprintf("user%d@b/x", i), fmt.Sprintf("user%d@b/y", i))
	}
	to := refs(all...)
	last := map[jid.JID]uint64{}
	lock, done := make(chan struct{}, 1), make(chan struct{})
	left := 2 * steps * len(to)
	stop := receive(t, q, func(_ context.Context, batch []*Envelope) error {
		lock <- struct{}{}
		defer func() { <-lock }()
		for _, e := range batch {
			for _, ref := range e.To {
				if e.Seq != last[ref.JID]+1 {
					t.Errorf("%s: %d after %d", ref.JID, e.Seq, last[ref.JID])
				}
				last[ref.JID] = e.Seq
				if left--; left == 0 {
					close(done)
				}
			}
		}
		return nil
	})
	for i := range uint64(steps) {
		batch := []*Envelope{{Kind: Deliver, Seq: 2*i + 1, To: to}}
		for _, ref := range to {
			batch = append(batch, &Envelope{Kind: Deliver, Seq: 2*i + 2, To: []sessions.Ref{ref}})
		}
		if err := q.Send(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	<-done
	stop()
}
