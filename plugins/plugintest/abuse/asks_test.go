package abuse

import (
	"context"
	"testing"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/processor"
)

// asker lets a test ask in the name of the house.
type asker struct {
	poison
	reg *processor.Registrar
}

func (a *asker) Register(r *processor.Registrar) { a.reg = r }

// A request of the house's own that reaches nobody fails at once, not when the
// time for an answer is over.
func TestAskReachesNobody(t *testing.T) {
	a := &asker{}
	w := start(t, configured([]string{unlimited}, nil), plugins.Plugin{Name: "asker", Doc: "Asks.", Components: []plugins.Maker{
		{Server: processor.Name, New: func(plugins.Env, plugins.Config) (plugins.Component, error) { return a, nil }},
	}})
	for _, from := range []string{"localhost", "alice@localhost"} {
		for _, to := range []string{"bob@localhost/gone", "nobody@localhost/r", "elsewhere.example"} {
			q := stanza.Make(stanza.IQ, stanza.TypeGet, jid.MustParse(from), jid.MustParse(to), w.fresh("ask"), stanza.El("urn:xmpp:ping", "ping"))
			var got []error
			a.reg.Ask(context.Background(), q, func(_ *stanza.Stanza, err error) { got = append(got, err) })
			if len(got) != 1 || got[0] == nil {
				t.Errorf("%s asks %s: %v", from, to, got)
			}
		}
	}
}
