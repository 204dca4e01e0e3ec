package router

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/router/channel"
	"parley/router/sessions"
)

// Who consumes a stored message: whom it was addressed to, unless its priority
// is negative. What is not consumed stays pending, and counts against the
// account's bound.
func TestRule38NegativePriorityNeverConsumes(t *testing.T) {
	st := stanza.Make(stanza.Message, "chat", jid.MustParse("romeo@b/x"), jid.MustParse("juliet@b/y"), "1")
	for _, c := range []struct {
		name string
		st   sessions.State
		want int64
	}{
		{"available", sessions.State{Available: true}, 7},
		{"negative", sessions.State{Available: true, Priority: -1}, 0},
		{"no presence sent", sessions.State{}, 7},
	} {
		b := &bundle{server: &Server{delivered: prometheus.NewCounter(prometheus.CounterOpts{Name: "x"})}}
		to := &sessions.Entry{Ref: sessions.Ref{Node: "n", Conn: 1, JID: st.To}, State: c.st}
		b.deliver(&channel.Envelope{Kind: channel.Route, Raw: st.Raw, Stanza: st, Pending: 7}, to)
		if len(b.out) != 1 || b.out[0].Pending != c.want {
			t.Errorf("%s: %+v", c.name, b.out)
		}
	}
}
