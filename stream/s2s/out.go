package s2s

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"parley/parser/stanza"
	"parley/plugins"
	"parley/router/channel"
	"parley/stream"
)

// Bounds of what is under way at one time.
const (
	maxConnects = 1000                   // to servers that stanzas wait for: some never answer
	maxVerifies = 250                    // to servers that are asked about keys
	tendEvery   = 250 * time.Millisecond // how often routes are looked at
)

// outbound has the routes to other servers.
type outbound struct {
	fed     *Federation
	env     plugins.Env
	cfg     atomic.Pointer[settings]
	keys    keys
	streams *stream.Registrar
	metrics *metrics

	ctx      context.Context
	cancel   context.CancelFunc
	tasks    sync.WaitGroup
	connects *semaphore.Weighted
	verifies *semaphore.Weighted

	mu     sync.Mutex // before route.mu, and that before carrier.mu or incoming.mu
	routes map[pair]*route
	guests map[*incoming]*stream.Conn // streams of others that have proven something
	backs  map[pair]back              // streams of others that go both ways, by the route that may use them
	ended  bool
}

// pair is who talks to whom: from one domain to another.
type pair struct{ from, to string }

func newOutbound(f *Federation, cfg *settings) *outbound {
	o := &outbound{
		fed: f, env: f.env, metrics: newMetrics(), routes: map[pair]*route{}, guests: map[*incoming]*stream.Conn{}, backs: map[pair]back{},
		connects: semaphore.NewWeighted(maxConnects), verifies: semaphore.NewWeighted(maxVerifies),
	}
	o.ctx, o.cancel = context.WithCancel(context.Background())
	o.cfg.Store(cfg)
	return o
}

// configure goes on with other settings; part has to follow.
func (o *outbound) configure(c *settings) { o.cfg.Store(c) }

// part ends the streams of pairs that may not talk any more, and what waits for them.
func (o *outbound) part() {
	cfg := o.cfg.Load()
	o.mu.Lock()
	var apart []*route
	for p, r := range o.routes {
		if cfg.allowed(p.from, p.to) {
			r.purge(cfg)
			continue
		}
		apart = append(apart, r)
		delete(o.routes, p)
	}
	var guests []*stream.Conn
	for in, c := range o.guests {
		if in.trespasses(cfg) {
			guests = append(guests, c)
		}
	}
	o.mu.Unlock()
	if len(apart)+len(guests) > 0 {
		o.env.Log.Info("streams with other servers end: their domains may not talk any more", "out", len(apart), "in", len(guests))
	}
	for _, r := range apart {
		r.close(errDenied)
	}
	for _, c := range guests {
		c.Abort(denied())
	}
}

// begin starts looking after routes.
func (o *outbound) begin(r *stream.Registrar) {
	o.streams = r
	o.tasks.Go(func() {
		for plugins.Pause(o.ctx, o.env.Clock, tendEvery) {
			o.tend(o.env.Clock.Now())
		}
	})
}

// end closes every stream and refuses what waits.
func (o *outbound) end() {
	o.mu.Lock()
	o.ended = true
	all := o.list()
	clear(o.routes)
	guests := maps.Clone(o.guests)
	o.mu.Unlock()
	for _, r := range all {
		r.close(timeout())
	}
	for _, c := range guests {
		c.Abort(&stanza.StreamError{Condition: stanza.StreamSystemShutdown})
	}
	o.cancel()
	o.tasks.Wait()
}

// welcome counts a stream of another server; goodbye ends that.
func (o *outbound) welcome(in *incoming, c *stream.Conn) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.guests[in] = c
	o.metrics.streams.WithLabelValues("in").Inc()
}

func (o *outbound) goodbye(in *incoming) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.guests[in]; ok {
		delete(o.guests, in)
		o.metrics.streams.WithLabelValues("in").Dec()
	}
}

// back is a stream that goes both ways; sure: by a certificate of the pair's other side.
type back struct {
	*carrier
	sure bool
}

// offer lets the routes of a pair use a stream of the other side that goes both
// ways and on which the pair was proven (XEP-0288 §2.2): the latest of them, but none
// that dialback has proven in the place of one that a certificate has (§6).
func (o *outbound) offer(p pair, b back) {
	o.mu.Lock()
	if was, there := o.backs[p]; there && was.sure && !b.sure {
		o.mu.Unlock()
		return
	}
	o.backs[p] = b
	r := o.routes[p]
	o.mu.Unlock()
	if r != nil {
		r.invited(o.env.Clock.Now())
	}
}

// withdraw ends offer.
func (o *outbound) withdraw(c *carrier) {
	o.mu.Lock()
	defer o.mu.Unlock()
	maps.DeleteFunc(o.backs, func(_ pair, x back) bool { return x.carrier == c })
}

// board lets a route on a stream that was offered; false: there is none.
func (o *outbound) board(r *route) bool {
	o.mu.Lock()
	b, there := o.backs[r.pair]
	o.mu.Unlock()
	return there && r.board(b)
}

// list are the routes; o.mu is held.
func (o *outbound) list() []*route {
	all := make([]*route, 0, len(o.routes))
	for _, r := range o.routes {
		all = append(all, r)
	}
	return all
}

// tend does what the time has come for.
func (o *outbound) tend(now time.Time) {
	o.mu.Lock()
	all := o.list()
	o.mu.Unlock()
	for _, r := range all {
		if r.tend(now) {
			continue
		}
		o.mu.Lock()
		if o.routes[r.pair] == r {
			delete(o.routes, r.pair)
		}
		o.mu.Unlock()
	}
}

var (
	errTooMany = stanza.NewError(stanza.ResourceConstraint, "this server talks to too many others at the moment")
	errQueue   = &stanza.Error{Type: stanza.Wait, Condition: stanza.ResourceConstraint, Text: "too much waits for that server already"}
	errDenied  = stanza.NewError(stanza.NotAllowed, "this server does not talk to that one")
)

// send is the router's Gateway.
func (o *outbound) send(e *channel.Envelope) (taken bool, why *stanza.Error) {
	p := pair{e.Stanza.From.Domain(), e.Stanza.To.Domain()}
	if !o.cfg.Load().federates(p.from) {
		return false, nil
	}
	it := item{
		raw:   e.Edits.Render(nil, e.Raw),
		since: o.env.Clock.Now(),
		env:   &channel.Envelope{Kind: channel.Route, Session: e.Session, Raw: e.Raw, Stanza: e.Stanza, Hops: e.Hops},
	}
	for {
		r, why := o.route(p)
		if why != nil {
			return true, o.refused(why)
		}
		if added, why := r.add(it); added {
			if why != nil {
				return true, o.refused(why)
			}
			return true, nil
		}
	}
}

func (o *outbound) refused(why *stanza.Error) *stanza.Error {
	o.metrics.bounced.WithLabelValues(string(why.Condition)).Inc()
	return why
}

// route finds or makes the one of a pair, or says why there is none. Pairs that may
// not talk have none; see part.
func (o *outbound) route(p pair) (*route, *stanza.Error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if r := o.routes[p]; r != nil {
		return r, nil
	}
	cfg := o.cfg.Load()
	switch {
	case !cfg.allowed(p.from, p.to):
		return nil, errDenied
	case o.ended || len(o.routes) >= cfg.Queue.Servers && !o.spare():
		return nil, errTooMany
	}
	r := &route{out: o, pair: p, log: o.env.Log.With("from", p.from, "to", p.to), used: o.env.Clock.Now()}
	o.routes[p] = r
	return r, nil
}

// spare drops a route on which nothing waits, so that who writes to made-up domains
// takes nobody's place; o.mu is held.
func (o *outbound) spare() bool {
	for p, r := range o.routes {
		if r.leave() {
			delete(o.routes, p)
			return true
		}
	}
	return false
}

// refuse answers what nobody can take.
func (o *outbound) refuse(all []item, why *stanza.Error) {
	r := o.fed.router.Load()
	for _, it := range all {
		o.metrics.bounced.WithLabelValues(string(why.Condition)).Inc()
		if r != nil {
			r.Refuse(context.Background(), it.env, why)
		}
	}
}

// dial connects to a server of the domain, with TLS if that is what begins there.
func (o *outbound) dial(ctx context.Context, p pair) (stream.Transport, error) {
	cfg := o.cfg.Load()
	find := newResolver(cfg.DNS, cfg.Private)
	all, err := find.targets(ctx, p.to)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, t := range all {
		tr, err := o.connect(ctx, find, p, t)
		if err == nil {
			return tr, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

func (o *outbound) connect(ctx context.Context, find *resolver, p pair, t target) (stream.Transport, error) {
	at, err := find.addresses(ctx, t)
	if err != nil {
		return nil, err
	}
	conn, err := dial(ctx, at, func(ctx context.Context, at netip.AddrPort) (net.Conn, error) {
		d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 15 * time.Second, Count: 4}}
		return d.DialContext(ctx, "tcp", at.String())
	})
	if err != nil {
		return nil, err
	}
	tr := stream.NewTCP(conn)
	if !t.direct {
		return tr, nil
	}
	cfg, err := o.clientTLS(p, true)
	if err == nil {
		err = o.streams.InitiateSecure(tr, cfg)
	}
	if err != nil {
		tr.Close(0)
		return nil, err
	}
	return tr, nil
}
