package cluster

import (
	"fmt"
	"strings"
	"testing"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/router/channel"
	"parley/router/sessions"
)

func spread(t *testing.T, raw string, to ...sessions.Ref) *channel.Envelope {
	t.Helper()
	st, err := stanza.Parse([]byte(raw), stanza.NSClient, nil)
	if err != nil {
		t.Fatal(err)
	}
	st.From = jid.MustParse("room@muc/n")
	return channel.Spread(sessions.Ref{}, st, channel.Full, to)
}

// What goes to many travels once to each node (design: fan-out is one NATS message
// per node).
func TestSpreadIsOneMessageForEachNode(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.enter("a"), w.enter("b"), w.enter("c")
	var to []sessions.Ref
	for i, m := range []*member{a, b, c, b, c, b} {
		to = append(to, m.bind(uint64(i+1), fmt.Sprintf("user%d@localhost/x", i)))
	}
	if err := a.Streamers(a.streamer).Send(t.Context(), []*channel.Envelope{spread(t, "<message id='1'/>", to...)}); err != nil {
		t.Fatal(err)
	}
	for _, at := range []struct {
		stage *intake
		of    []int
	}{{a.streamer, []int{0}}, {b.router, []int{1, 3, 5}}, {c.router, []int{2, 4}}} {
		e := at.stage.next(t)
		if len(e.To) != len(at.of) || len(at.stage.got) > 0 {
			t.Fatalf("%d of it went to %v, and %d more came", len(e.To), e.To, len(at.stage.got))
		}
		for i, n := range at.of {
			if e.To[i] != to[n] || string(e.Rendered(nil, e.To[i].JID)) != "<message to='"+to[n].JID.String()+"' from='room@muc/n' id='1'/>" {
				t.Errorf("%s got %s", e.To[i].JID, e.Rendered(nil, e.To[i].JID))
			}
		}
	}
}

// Who is of a release that does not know of Splice gets what it reads.
func TestReliability37SpreadToAnOlderNode(t *testing.T) {
	w := newWorld(t)
	older, newer := w.enter("older"), w.enter("newer")
	newer.encode = later(func(e *channel.Envelope) bool { return e.Splice != channel.Nobody })
	juliet, romeo := older.bind(1, "juliet@localhost/x"), older.bind(2, "romeo@localhost/x")
	direct := spread(t, "<message id='direct'/>", juliet)
	direct.Splice = channel.Nobody
	if err := newer.Streamers(newer.streamer).Send(t.Context(), []*channel.Envelope{spread(t, "<message id='1'/>", juliet, romeo), direct}); err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for range 3 {
		e := older.router.next(t)
		if len(e.To) != 1 || e.Splice != channel.Nobody {
			t.Fatalf("%v", e)
		}
		got[string(e.Edits.Render(nil, e.Raw))]++
	}
	for _, want := range []string{"<message to='juliet@localhost/x' from='room@muc/n' id='1'/>", "<message to='romeo@localhost/x' from='room@muc/n' id='1'/>", "<message from='room@muc/n' id='direct'/>"} {
		if got[want] != 1 {
			t.Errorf("%s is not among %v", want, got)
		}
	}
}

// More recipients than a NATS message holds get it in parts.
func TestSpreadToVeryMany(t *testing.T) {
	const many = 20_000
	w := newWorld(t)
	a, b := w.enter("a"), w.enter("b")
	to := make([]sessions.Ref, many)
	for i := range to {
		to[i] = sessions.Ref{Node: "b", Conn: uint64(i + 1), JID: jid.MustParse(fmt.Sprintf("user%d@localhost/%s", i, strings.Repeat("x", 100)))}
	}
	if err := a.Streamers(a.streamer).Send(t.Context(), []*channel.Envelope{spread(t, "<message id='1'/>", to...)}); err != nil {
		t.Fatal(err)
	}
	got, parts := 0, 0
	for got < many {
		e := b.router.next(t)
		if e.To[0] != to[got] {
			t.Fatalf("part %d begins with %v, not %v", parts, e.To[0], to[got])
		}
		got, parts = got+len(e.To), parts+1
	}
	if parts < 2 {
		t.Errorf("%d part", parts)
	}
}

// What a node does not take comes back for each recipient, as it would have got it.
func TestSpreadToANodeThatIsGone(t *testing.T) {
	w := newWorld(t)
	a, b := w.enter("a"), w.enter("b")
	to := []sessions.Ref{b.bind(1, "juliet@localhost/x"), b.bind(2, "romeo@localhost/x")}
	b.stop()
	out := []*channel.Envelope{spread(t, "<message id='1'/>", to...), spread(t, "<presence/>", to...)}
	if err := a.Streamers(a.streamer).Send(t.Context(), out); err != nil {
		t.Fatal(err)
	}
	for _, ref := range to {
		e := a.parser.next(t)
		if want := "<message to='" + ref.JID.String() + "' from='room@muc/n' id='1'/>"; e.Kind != channel.Undelivered || e.Session != ref || string(e.Raw) != want {
			t.Errorf("%v %s came back, want %s", e.Session, e.Raw, want)
		}
	}
	if len(a.parser.got) > 0 {
		t.Errorf("%s came back as well", a.parser.next(t).Raw)
	}
}
