// Package ping answers application-level pings (XEP-0199) to the server and,
// on behalf of an account, to that account's own clients.
//
// A ping to somebody else's bare JID gets the answer of an unknown account:
// whether an account exists is nobody's business (spec: rule 35).
package ping

import (
	"context"

	"parley/parser/stanza"
	"parley/plugins"
	"parley/processor"
)

// NS is the namespace of XEP-0199 §9.1.
const NS = "urn:xmpp:ping"

// Plugin provides the component.
var Plugin = plugins.Plugin{
	Name:       "ping",
	Doc:        "Answers pings, so that clients and peers can tell whether a connection lives.",
	Components: []plugins.Maker{{Server: processor.Name, New: newPing}},
}

type ping struct{}

var _ processor.Component = ping{}

func newPing(plugins.Env, plugins.Config) (plugins.Component, error) { return ping{}, nil }

// Start implements plugins.Component.
func (ping) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (ping) Stop(context.Context) error { return nil }

// Register implements processor.Component.
func (ping) Register(r *processor.Registrar) {
	r.Feature(NS) // XEP-0199 §5
	r.AccountFeature(NS)
	r.IQ(NS, "ping", processor.Host|processor.Self, answer)
}

// answer is XEP-0199 §4.2, §4.3: an empty result.
func answer(_ context.Context, q *processor.IQ) (*stanza.Element, error) {
	if q.Set() {
		return nil, stanza.NewError(stanza.BadRequest, "a ping is of type get")
	}
	return nil, nil
}
