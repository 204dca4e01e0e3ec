package presence

import (
	"strconv"
	"strings"
	"testing"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/router/sessions"
)

func TestCaps(t *testing.T) {
	for _, c := range []struct{ xml, node, hash string }{
		{`<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='urn:x' ver='abc='/>`, "urn:x#abc=", "sha-1"},
		{`<c xmlns='http://jabber.org/protocol/caps' node='urn:x' ver='0.9' ext='voice'/>`, "", ""},
		{`<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='urn:x#y' ver='abc='/>`, "", ""},
		{`<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='urn:x' ver='` + strings.Repeat("x", 1000) + `'/>`, "", ""},
		{`<c xmlns='urn:other' hash='sha-1' node='urn:x' ver='abc='/>`, "", ""},
		{``, "", ""},
	} {
		st, err := stanza.Parse([]byte(`<presence>`+c.xml+`</presence>`), stanza.NSClient, nil)
		if err != nil {
			t.Fatal(err)
		}
		if node, hash := caps(st); node != c.node || hash != c.hash {
			t.Errorf("%.80s: %q, %q", c.xml, node, hash)
		}
	}
}

// RFC 6121 §4.6.1: the list is bounded, and empty when the session has ended.
func TestRule55DirectedIsBoundedAndForgotten(t *testing.T) {
	d := newDirected()
	me, room := jid.MustParse("a@b/c"), jid.MustParse("room@muc/nick")
	for range 2 { // once is a place, twice is the same place
		if !d.add(me, room, 1) {
			t.Error("no room for the first")
		}
	}
	if d.add(me, jid.MustParse("x@y"), 1) {
		t.Error("the bound does not hold")
	}
	if !d.Shows(me, room) || d.Shows(me, room.Bare()) {
		t.Error("only the very entity is shown the session")
	}
	if got := d.take(me); len(got) != 1 || got[0] != room {
		t.Errorf("took %v", got)
	}
	d.add(me, room, 1)
	d.remove(me, room)
	if len(d.bySession) != 0 {
		t.Errorf("%d sessions are remembered", len(d.bySession))
	}
}

// RFC 6121 §8.5.2.1.1: pending messages are due when a session begins to
// receive, and only then.
func TestRule56Transition(t *testing.T) {
	state := func(available bool, priority int8) sessions.State {
		return sessions.State{Available: available, Priority: priority}
	}
	for _, c := range []struct {
		before, now             sessions.State
		arrived, left, receives bool
	}{
		{state(false, 0), state(true, 0), true, false, true},
		{state(false, 0), state(true, -1), true, false, false},
		{state(true, -1), state(true, 0), false, false, true},
		{state(true, 5), state(true, 0), false, false, false},
		{state(true, 5), state(true, -1), false, false, false},
		{state(true, 5), state(false, 0), false, true, false},
	} {
		tr := &Transition{Session: &sessions.Entry{State: c.now}, Before: c.before}
		if tr.Arrived() != c.arrived || tr.Left() != c.left || tr.Receives() != c.receives {
			t.Errorf("%+v → %+v: arrived %v, left %v, receives %v", c.before, c.now, tr.Arrived(), tr.Left(), tr.Receives())
		}
	}
}

// Whatever a client sends as presence is refused or has a priority that its
// text names, and can be shown to somebody else.
func FuzzPresence(f *testing.F) {
	f.Add(`<presence><priority>5</priority></presence>`)
	f.Add(`<presence xml:lang='de'><priority>-128</priority><c xmlns='http://jabber.org/protocol/caps' hash='h' node='n' ver='v'/></presence>`)
	f.Add(`<presence><priority> +7 </priority><x:y xmlns:x='z'/></presence>`)
	to := jid.MustParse("romeo@example.net")
	from := jid.MustParse("juliet@example.com/balcony")
	f.Fuzz(func(t *testing.T, raw string) {
		if _, err := stanza.ParseElement([]byte(raw), stanza.NSClient); err != nil {
			return // the reader lets nothing in that is no XML
		}
		st, err := stanza.Parse([]byte(raw), stanza.NSClient, nil)
		if err != nil || st.Kind != stanza.Presence {
			return
		}
		if n, err := priority(st); err == nil && st.Has(stanza.NSClient, "priority") {
			if got, err := strconv.Atoi(strings.TrimSpace(st.Child(stanza.NSClient, "priority").Text())); err != nil || got != int(n) {
				t.Fatalf("%q has priority %d", raw, n)
			}
		}
		caps(st)
		again := rewritten(st, from, to)
		if again == nil || again.From != from || again.To != to || again.Type != st.Type || len(again.Children) != len(st.Children) {
			t.Fatalf("%q became %v", raw, again)
		}
	})
}
