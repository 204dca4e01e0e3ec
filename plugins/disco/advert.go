package disco

import (
	"context"
	"fmt"
	"sync"
	"time"

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
type advert struct {
	caps *Caps
	far  *farVer // nil: the processor is in this process
}

var _ stream.Component = advert{}

func newAdvert(env plugins.Env, _ plugins.Config) (plugins.Component, error) {
	c, err := plugins.Need[*Caps](env, "disco")
	a := advert{caps: c}
	if env.Front() {
		a.far = &farVer{env: env, known: map[jid.JID]farAnswer{}}
	}
	return a, err
}

// Start implements plugins.Component.
func (advert) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (advert) Stop(context.Context) error { return nil }

// Register implements stream.Component.
func (a advert) Register(r *stream.Registrar) {
	r.StreamFeature(stream.Feature{In: stream.Authenticated, Order: orderCaps, Advertise: func(c *stream.Conn) *stanza.Element {
		domain := c.Account().Host()
		if a.far != nil {
			return capsElement(a.far.ver(domain))
		}
		return a.caps.Own(context.Background(), domain)
	}})
}

// callVer is a front's question for the verification string of a domain.
const callVer = "disco.ver"

// farVer knows what the core answers, for a while.
type farVer struct {
	env   plugins.Env
	mu    sync.Mutex
	known map[jid.JID]farAnswer // of our own domains
}

type farAnswer struct {
	ver   string
	until time.Time
}

const (
	farKept = 10 * time.Second // a hash that has just changed may be told for so long
	farWait = time.Second      // clients wait for it while they log in
)

// ver asks the core; "": it does not say.
func (f *farVer) ver(domain jid.JID) string {
	now := f.env.Clock.Now()
	f.mu.Lock()
	a, ok := f.known[domain]
	f.mu.Unlock()
	if ok && now.Before(a.until) {
		return a.ver
	}
	ctx, cancel := context.WithTimeout(context.Background(), farWait)
	defer cancel()
	answer, err := f.env.Halves.CallCore(ctx, callVer, []byte(domain.String()))
	if err != nil {
		f.env.Log.Warn("the core does not say what the server can do", "err", err)
		return ""
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.known[domain] = farAnswer{string(answer), now.Add(farKept)}
	return string(answer)
}

// answerVer is the core's part.
func (c *Caps) answerVer(ctx context.Context, _ string, payload []byte) ([]byte, error) {
	domain, err := jid.Parse(string(payload))
	if err != nil {
		return nil, fmt.Errorf("domain: %w", err)
	}
	d := c.server.Load()
	if d == nil {
		return nil, nil
	}
	return []byte(d.ver(ctx, domain)), nil
}

// Own returns the <c/> of one of our domains, or nil while nobody answers for
// it in this process.
func (c *Caps) Own(ctx context.Context, domain jid.JID) *stanza.Element {
	d := c.server.Load()
	if d == nil {
		return nil
	}
	return capsElement(d.ver(ctx, domain))
}

func capsElement(v string) *stanza.Element {
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
