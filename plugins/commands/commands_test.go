package commands

import (
	"errors"
	"testing"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/router/sessions"
)

type clock struct {
	plugins.SystemClock
	now time.Time
}

func (c *clock) Now() time.Time { return c.now }

func asker(at string, conn uint64) Asker {
	j := jid.MustParse(at)
	return Asker{Session: &sessions.Entry{Ref: sessions.Ref{Node: "n", Conn: conn, JID: j}}, Domain: j.Host()}
}

func begun(a Asker) *session {
	return &session{id: newID(), ref: a.Session.Ref, node: "x", domain: a.Domain, exec: Execution{Asker: a}}
}

func app(err error) string {
	var se *stanza.Error
	if errors.As(err, &se) && se.App != nil {
		return se.App.Name.Local
	}
	return ""
}

// Sessions are bounded in number and time (XEP-0050 §3.3), and their owner's alone.
func TestSessions(t *testing.T) {
	c := &clock{now: time.Unix(1e9, 0)}
	tb := newTable(Config{TTL: time.Minute, PerAccount: 2, Sessions: 3}, c)
	romeo, juliet := asker("romeo@montague.example/a", 1), asker("juliet@capulet.example/b", 2)
	one, two, three := begun(romeo), begun(romeo), begun(romeo)
	for _, s := range []*session{one, two, three} {
		if err := tb.put(s); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tb.take(one.id, romeo, "x"); app(err) != "bad-sessionid" {
		t.Errorf("the oldest of an account with too many: %v", err)
	}
	other := asker("romeo@montague.example/other", 3)
	for name, row := range map[string]struct {
		a    Asker
		node string
	}{"somebody else": {juliet, "x"}, "another device": {other, "x"}, "another command": {romeo, "y"}} {
		if _, err := tb.take(two.id, row.a, row.node); app(err) != "bad-sessionid" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := tb.put(begun(juliet)); err != nil {
		t.Fatal(err)
	}
	var se *stanza.Error
	if err := tb.put(begun(asker("mercutio@montague.example/c", 4))); !errors.As(err, &se) || se.Condition != stanza.ResourceConstraint {
		t.Errorf("one too many on the node: %v", err)
	}
	s, err := tb.take(two.id, romeo, "x")
	if err != nil || s != two {
		t.Fatalf("%v, %v", s, err)
	}
	if _, err := tb.take(two.id, romeo, "x"); app(err) != "bad-sessionid" {
		t.Errorf("two steps at one time: %v", err)
	}
	c.now = c.now.Add(2 * time.Minute)
	if _, err := tb.take(three.id, romeo, "x"); app(err) != "session-expired" {
		t.Errorf("too late: %v", err)
	}
	if err := tb.put(begun(romeo)); err != nil || tb.waiting.Len() != 1 || len(tb.of) != 1 || len(tb.byID) != 1 {
		t.Errorf("expired ones stay: %d, %v, %v", tb.waiting.Len(), tb.of, err)
	}
	if tb.left(romeo.Session.Ref); tb.waiting.Len()+len(tb.of)+len(tb.byID) != 0 {
		t.Error("something stays of who has gone")
	}
}
