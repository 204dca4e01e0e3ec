package carbons

import (
	"context"

	"parley/parser/stanza"
	"parley/plugins"
	"parley/router/sessions"
	"parley/stream"
)

// inline works in the streamer: a client switches copies on while it binds
// (XEP-0386 §3.2), so that it misses nothing.
type inline struct{ idle }

func newInline(plugins.Env, plugins.Config) (plugins.Component, error) { return inline{}, nil }

// Register implements stream.Component.
func (inline) Register(r *stream.Registrar) {
	r.InlineFeature(stream.Inline{
		Name: stanza.Name{Space: NS, Local: "enable"},
		Handle: func(_ context.Context, _ *stream.Conn, _ *stanza.Element, st *sessions.State) *stanza.Element {
			st.Carbons = true
			return nil
		},
	})
}
