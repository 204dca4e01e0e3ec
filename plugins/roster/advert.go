package roster

import (
	"context"

	"parley/parser/stanza"
	"parley/plugins"
	"parley/stream"
)

// Namespaces of the stream features.
const (
	NSVersioning  = "urn:xmpp:features:rosterver"    // RFC 6121 §2.6.1
	NSPreApproval = "urn:xmpp:features:pre-approval" // RFC 6121 §3.4
)

// advertOrder puts the features behind those that a client has to act on.
const advertOrder = 210

// advert tells clients what the roster can do. Both features are merely
// informative.
type advert struct{}

var _ stream.Component = advert{}

func newAdvert(plugins.Env, plugins.Config) (plugins.Component, error) { return advert{}, nil }

// Start implements plugins.Component.
func (advert) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (advert) Stop(context.Context) error { return nil }

// Register implements stream.Component.
func (advert) Register(r *stream.Registrar) {
	for _, el := range []stanza.Name{{Space: NSVersioning, Local: "ver"}, {Space: NSPreApproval, Local: "sub"}} {
		r.StreamFeature(stream.Feature{In: stream.Authenticated, Order: advertOrder, Advertise: func(*stream.Conn) *stanza.Element {
			return stanza.El(el.Space, el.Local)
		}})
	}
}
