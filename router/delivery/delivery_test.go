package delivery

import (
	"testing"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/router/sessions"
)

// TestRule37To42Table reads RFC 6121 §8.5.4, Table 1, from the outside.
func TestRule37To42Table(t *testing.T) {
	full, gone := "juliet@b/balcony", "juliet@b/gone"
	entry := func(available bool, priority int8) *sessions.Entry {
		return &sessions.Entry{Ref: sessions.Ref{Conn: 1, JID: jid.MustParse(full)}, State: sessions.State{Available: available, Priority: priority}}
	}
	up, negative, silent := []*sessions.Entry{entry(true, 0)}, []*sessions.Entry{entry(true, -1)}, []*sessions.Entry{entry(false, 0)}
	for _, c := range []struct {
		rule, typ, to string
		all           []*sessions.Entry
		want          Action
	}{
		{"37 normal", "normal", "juliet@b", up, ToAll},
		{"37 no type", "", "juliet@b", up, ToAll},
		{"37 unknown type (RFC 6121 §5.2.2)", "shout", "juliet@b", up, ToAll},
		{"37 chat", "chat", "juliet@b", up, ToAll},
		{"37 headline", "headline", "juliet@b", up, ToAll},
		{"37 headline, nobody", "headline", "juliet@b", nil, Drop},
		{"37 groupchat", "groupchat", "juliet@b", up, Refuse},
		{"37 error", "error", "juliet@b", up, Drop},
		{"38 negative", "chat", "juliet@b", negative, Keep},
		{"38 bound, not available", "chat", "juliet@b", silent, Keep},
		{"43 offline", "chat", "juliet@b", nil, Keep},
		{"41 full", "normal", full, up, ToOne},
		{"41 full, negative", "chat", full, negative, ToOne},
		{"41 full, groupchat", "groupchat", full, up, ToOne},
		{"41 full, error", "error", full, up, ToOne},
		{"42 gone, chat", "chat", gone, up, ToAll},
		{"42 gone, chat, nobody", "chat", gone, nil, Keep},
		{"42 gone, normal", "normal", gone, up, Refuse},
		{"42 gone, headline", "headline", gone, up, Refuse},
		{"42 gone, error", "error", gone, up, Drop},
	} {
		st := stanza.Make(stanza.Message, c.typ, jid.MustParse("romeo@b/x"), jid.MustParse(c.to), "1")
		if got := Decide(st, c.all); got != c.want {
			t.Errorf("%s: got %d, want %d", c.rule, got, c.want)
		}
	}
}

func TestRule42IQToNobody(t *testing.T) {
	st := stanza.Make(stanza.IQ, "get", jid.MustParse("romeo@b/x"), jid.MustParse("juliet@b/gone"), "1", stanza.El("x", "y"))
	if got := Decide(st, nil); got != Refuse {
		t.Errorf("got %d", got)
	}
	st = stanza.Make(stanza.IQ, "result", jid.MustParse("romeo@b/x"), jid.MustParse("juliet@b/gone"), "1")
	if got := Decide(st, nil); got != Drop {
		t.Errorf("an answer to nobody is answered: %d", got)
	}
}
