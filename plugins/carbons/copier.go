package carbons

import (
	"context"
	"slices"

	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/message/kinds"
	"parley/router"
	"parley/router/channel"
	"parley/router/sessions"
)

// copier works in the router: copies of what an account receives (§7).
type copier struct {
	idle
	answers *answers
}

func newCopier(env plugins.Env, _ plugins.Config) (plugins.Component, error) {
	a, err := plugins.Need[*answers](env, Name)
	return &copier{answers: a}, err
}

// Register implements router.Component.
func (c *copier) Register(r *router.Registrar) { r.Copies(c.copy) }

func (c *copier) copy(_ context.Context, m *router.Copied) []*channel.Envelope {
	if m.Private {
		return nil
	}
	k := kinds.Of(m.Stanza)
	eligible := k.Copied(kinds.Received) || k.Type == stanza.TypeError && c.answers.expected(m.Stanza)
	if !eligible {
		return nil
	}
	var out []*channel.Envelope
	var wrapped *copies
	for _, x := range m.All {
		if !x.Carbons || x.Ref == m.Session || slices.Contains(m.Chosen, x) || waits(x, m) {
			continue
		}
		if wrapped == nil {
			wrapped = newCopies("received", m.Stanza, m.Raw, m.Edits)
		}
		out = append(out, wrapped.to(x))
	}
	return out
}

// waits reports whether the session gets the message itself, later: it is
// still being brought what it missed.
func waits(x *sessions.Entry, m *router.Copied) bool {
	if !x.Replaying || !x.Receives() {
		return false
	}
	return m.To.IsBare() || !slices.ContainsFunc(m.Chosen, func(c *sessions.Entry) bool { return c.JID == m.To })
}
