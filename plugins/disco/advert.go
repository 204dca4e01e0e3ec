package disco

import (
	"context"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/stream"
)

// softwareNode is the node of the server's own capabilities: a URI that names
// the software (XEP-0115 §4).
const softwareNode = "parley:server"

// ownHash is the algorithm of the server's own verification string: the one
// that everybody must know (XEP-0115 §9.1).
const ownHash = "sha-1"

// orderCaps puts <c/> behind what clients have to act on.
const orderCaps = 200

// advert is the streamer component: it puts the server's capabilities into
// stream features, so that clients need not ask (XEP-0115 §6.3).
type advert struct{ caps *Caps }

var _ stream.Component = advert{}

func newAdvert(env plugins.Env, _ plugins.Config) (plugins.Component, error) {
	c, err := plugins.Need[*Caps](env, "disco")
	return advert{c}, err
}

// Start implements plugins.Component.
func (advert) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (advert) Stop(context.Context) error { return nil }

// Register implements stream.Component.
func (a advert) Register(r *stream.Registrar) {
	r.StreamFeature(stream.Feature{In: stream.Authenticated, Order: orderCaps, Advertise: func(c *stream.Conn) *stanza.Element {
		return a.caps.Own(context.Background(), c.Account().Host())
	}})
}

// Own returns the <c/> of one of our domains, or nil while nobody answers for
// it in this process.
func (c *Caps) Own(ctx context.Context, domain jid.JID) *stanza.Element {
	d := c.server.Load()
	if d == nil {
		return nil
	}
	v := d.ver(ctx, domain)
	if v == "" {
		return nil
	}
	return stanza.El(NSCaps, "c").With("hash", ownHash).With("node", softwareNode).With("ver", v)
}

// ver is the verification string of what the domain answers to anybody.
func (d *disco) ver(ctx context.Context, domain jid.JID) string {
	a := &InfoAnswer{Question: Question{Asker: domain, Owner: domain}}
	if err := d.describe(ctx, a); err != nil {
		d.env.Log.Error("the server cannot describe itself", "err", err)
		return ""
	}
	return a.Ver(ownHash)
}

// capsNode is the node under which the server is asked for what it announced.
func (d *disco) capsNode(ctx context.Context, domain jid.JID) string {
	return softwareNode + "#" + d.ver(ctx, domain)
}
