package archive

import (
	"context"

	"parley/parser/stanza"
	"parley/plugins"
	"parley/router/sessions"
	"parley/stream"
)

// bound works in the streamer: it tells clients that bind where their archive
// begins and ends at that moment (XEP-0386 §3.2). The processor's component
// serves the archive; without it there is nothing to tell.
type bound struct{ *Archive }

var _ stream.Component = bound{}

func newBound(env plugins.Env, _ plugins.Config) (plugins.Component, error) {
	a, err := plugins.Need[*Archive](env, Name)
	return bound{a}, err
}

// Start implements plugins.Component.
func (bound) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (bound) Stop(context.Context) error { return nil }

// Register implements stream.Component.
func (b bound) Register(r *stream.Registrar) {
	r.InlineFeature(stream.Inline{Always: true, Handle: func(ctx context.Context, c *stream.Conn, _ *stanza.Element, _ *sessions.State) *stanza.Element {
		if b.open.Load() == 0 && !b.env.Front() { // there the core has it
			return nil
		}
		o, err := b.owners.get(ctx, c.Account())
		if err != nil {
			b.env.Log.Warn("archive not described to a new session", "account", c.Account().String(), "err", err)
			return nil
		}
		el, err := b.ends(ctx, o)
		if err != nil {
			b.env.Log.Warn("archive not described to a new session", "account", c.Account().String(), "err", err)
			return nil
		}
		return el
	}})
}
