// Package router is stage 4: it finds the recipients of a stanza and hands it
// over to the streams they are bound to.
//
// The rules are RFC 6120 §10 for whose business a stanza is, and RFC 6121 §8,
// which stands as a table in router/delivery, for local accounts. External
// components are domains of their own (XEP-0114). What one batch leads to goes
// to the streamer as one batch, so that each touched stream is flushed once.
package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/router/channel"
	"parley/router/delivery"
	"parley/router/sessions"
)

// Name is the Server's name in configurations.
const Name = "router"

// Plugin provides the Server.
var Plugin = plugins.Plugin{
	Name:  Name,
	Doc:   "Finds the recipients of stanzas.",
	Serve: &plugins.ServerMaker{Name: Name, Defaults: &Config{Deployment: plugins.Deployment{Type: "local"}}, New: newServer},
}

// Component works in the router.
type Component interface {
	plugins.Component
	Register(*Registrar)
}

// Copied is a message that has found its recipients in an account.
type Copied struct {
	*stanza.Stanza
	Account jid.JID           // whose sessions these are
	Session sessions.Ref      // the sender's stream, when it is a local client's
	Private bool              // no copies are wanted
	Raw     []byte            // with Edits: what the recipients get
	Edits   stanza.Edits      //
	Chosen  []*sessions.Entry // who gets it
	All     []*sessions.Entry // every session of the account
}

// Copier returns further deliveries for a message, to sessions of the same
// account that it was not addressed to (XEP-0280 §7).
type Copier func(context.Context, *Copied) []*channel.Envelope

// Gateway takes stanzas for domains that are not served here. It reports false
// when it has no way there; why, if it is not nil, is what the sender hears. What it
// has taken and cannot hand on later goes to Registrar.Refuse.
type Gateway func(context.Context, *channel.Envelope) (taken bool, why *stanza.Error)

// Absence says why nobody can be reached at a domain that belongs here but
// has no stream now; nil: it does not belong here.
type Absence func(domain string) *stanza.Error

// Registrar takes down what a component wants to do.
type Registrar struct {
	server   *Server
	name     string
	copiers  []Copier
	gateways []Gateway
	absences []Absence
	returns  []func(domain string) bool
}

// Returns lets stanzas for domains that f knows go to the processor, which has what
// serves them: what their rooms have sent and nobody could take.
func (r *Registrar) Returns(f func(domain string) bool) { r.returns = append(r.returns, f) }

// Absent lets f answer for domains of external components that are away,
// before anybody looks for them elsewhere.
func (r *Registrar) Absent(f Absence) { r.absences = append(r.absences, f) }

// Copies lets f add copies to each message that is delivered to an account.
func (r *Registrar) Copies(f Copier) { r.copiers = append(r.copiers, f) }

// Remote lets g take stanzas for foreign domains.
func (r *Registrar) Remote(g Gateway) { r.gateways = append(r.gateways, g) }

// Serves reports whether stanzas for the domain stay here: it is one of ours, has a
// component of its own, or the processor serves it.
func (r *Registrar) Serves(domain string) bool {
	if r.server.env.Local(domain) || r.server.env.Domains.Serve(domain) {
		return true
	}
	for _, p := range *r.server.parts.Load() {
		if slices.ContainsFunc(p.returns, func(f func(string) bool) bool { return f(domain) }) ||
			slices.ContainsFunc(p.absences, func(f Absence) bool { return f(domain) != nil }) {
			return true
		}
	}
	return false
}

// Refuse answers a stanza that a gateway has taken, unless it is one that must not
// be answered. It is not for inside of the gateway.
func (r *Registrar) Refuse(ctx context.Context, e *channel.Envelope, why *stanza.Error) {
	s := r.server
	s.mu.RLock()
	b := s.bundle(1)
	b.refuse(ctx, e, why)
	s.mu.RUnlock()
	s.hand(ctx, b.out, b.back)
}

// Config is the Server's section.
type Config struct {
	Deployment plugins.Deployment `yaml:"deployment" reload:"restart" doc:"How the Server is joined to the others."`
}

// Server is the stage.
type Server struct {
	env   plugins.Env
	log   *slog.Logger
	links plugins.Links

	mu    sync.RWMutex // held for reading while a batch runs, so that Attach drains
	parts atomic.Pointer[[]*Registrar]

	routed    *prometheus.CounterVec
	delivered prometheus.Counter // of routed
}

func newServer(env plugins.Env, _ plugins.Config, links plugins.Links) (plugins.Server, error) {
	s := &Server{env: env, log: env.Log, links: links}
	s.parts.Store(&[]*Registrar{})
	s.routed = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_routed_total", Help: "What became of routed stanzas."}, []string{"outcome"})
	if err := env.Metrics.Register(s.routed); err != nil {
		return nil, fmt.Errorf("router metrics: %w", err)
	}
	s.delivered = s.routed.WithLabelValues("delivered")
	return s, nil
}

// Serve implements plugins.Server.
func (s *Server) Serve(ctx context.Context) error { return s.links.In.Receive(ctx, s.route) }

// Attach implements plugins.Server.
func (s *Server) Attach(name string, c plugins.Component) (func(context.Context) error, error) {
	rc, ok := c.(Component)
	if !ok {
		return nil, fmt.Errorf("%s: a router component needs Register", name)
	}
	r := &Registrar{server: s, name: name}
	rc.Register(r)
	s.replace(func(p *Registrar) bool { return p.name == name }, r)
	return func(context.Context) error {
		s.replace(func(p *Registrar) bool { return p == r }, nil)
		return nil
	}, nil
}

// replace swaps the parts and returns when no batch runs with the old ones.
func (s *Server) replace(old func(*Registrar) bool, fresh *Registrar) {
	s.mu.Lock()
	defer s.mu.Unlock()
	parts := slices.DeleteFunc(slices.Clone(*s.parts.Load()), old)
	if fresh != nil {
		parts = append(parts, fresh)
	}
	slices.SortFunc(parts, func(a, b *Registrar) int { return strings.Compare(a.name, b.name) })
	s.parts.Store(&parts)
}

// route is the stage's channel.Handler.
func (s *Server) route(ctx context.Context, batch []*channel.Envelope) error {
	for i, e := range batch {
		if e.Kind != channel.Arrive || len(e.To) == 0 || e.To[0].Node != s.env.Node {
			continue
		}
		// It keeps its place among what the other node has routed itself.
		if err := s.routeAll(ctx, batch[:i]); err != nil {
			return err
		}
		if err := s.links.Out("processor").Send(ctx, batch[i:i+1:i+1]); err != nil && ctx.Err() == nil && !errors.Is(err, channel.ErrClosed) {
			s.log.Error("processor does not take what has arrived", "err", err)
		}
		return s.route(ctx, batch[i+1:])
	}
	return s.routeAll(ctx, batch)
}

func (s *Server) routeAll(ctx context.Context, batch []*channel.Envelope) error {
	if len(batch) == 0 {
		return nil
	}
	s.mu.RLock()
	b := s.bundle(len(batch))
	for _, e := range batch {
		b.guard(ctx, e)
	}
	s.mu.RUnlock()
	s.hand(ctx, b.out, b.back)
	return nil
}

// bundle is for a batch of n; s.mu is held as long as something is added.
func (s *Server) bundle(n int) bundle {
	return bundle{server: s, parts: *s.parts.Load(), out: make([]*channel.Envelope, 0, n+2)}
}

// hand passes on what a bundle has led to, with no lock held: whoever asked may ask
// somebody else.
func (s *Server) hand(ctx context.Context, out, back []*channel.Envelope) {
	if len(back) > 0 {
		if err := s.links.Out("processor").Send(ctx, back); err != nil && ctx.Err() == nil && !errors.Is(err, channel.ErrClosed) {
			s.log.Error("processor does not take what was not delivered", "err", err, "count", len(back))
		}
	}
	if len(out) == 0 {
		return
	}
	err := s.links.Out("streamer").Send(ctx, out)
	if err != nil && ctx.Err() == nil && !errors.Is(err, channel.ErrClosed) { // closed: the house stops, nobody is connected
		s.log.Error("streamer does not take deliveries", "err", err, "count", len(out))
	}
}

// bundle is what one batch leads to.
type bundle struct {
	server *Server
	parts  []*Registrar
	out    []*channel.Envelope
	back   []*channel.Envelope // requests of the server's own that reach nobody, and what somebody panicked at
}

// guard lets an envelope that somebody panics at cost nothing else
// (reliability row 38): the processor answers, or sets it aside.
func (b *bundle) guard(ctx context.Context, e *channel.Envelope) {
	before := len(b.out)
	why := b.server.protect(e, func() { b.add(ctx, e) })
	if why == "" || e.Stanza == nil || len(b.out) > before { // what is on its way is delivered
		return
	}
	b.back = append(b.back, &channel.Envelope{Kind: channel.Poisoned, Session: e.Session, Raw: e.Raw, Stanza: e.Stanza, Pending: e.Pending, Hops: e.Hops + 1, Reason: why})
}

// protect runs what others have written and returns what it panicked with.
func (s *Server) protect(e *channel.Envelope, do func()) (why string) {
	defer func() {
		if p := recover(); p != nil {
			s.routed.WithLabelValues("panicked").Inc()
			s.log.Error("routing panicked", "panic", fmt.Sprint(p), "kind", e.Kind.String(), "pending", e.Pending, "stack", string(debug.Stack()))
			why = fmt.Sprintf("%v (in the router)", p)
		}
	}()
	do()
	return ""
}

func (b *bundle) add(ctx context.Context, e *channel.Envelope) {
	switch e.Kind {
	case channel.Route:
		b.route(ctx, e)
	case channel.Deliver:
		b.land(e)
	case channel.Handled, channel.Close, channel.Arrive, channel.Note:
		b.out = append(b.out, e)
	default:
		b.server.log.Error("envelope of a kind that does not belong here", "kind", e.Kind.String())
	}
}

// route finds out whose business the stanza is (RFC 6120 §10.4, §10.5).
func (b *bundle) route(ctx context.Context, e *channel.Envelope) {
	to := e.Stanza.To
	switch {
	case to.IsZero():
		b.server.log.Error("stanza without an address in the router", "from", e.Stanza.From.String(), "id", e.Stanza.ID)
	case b.server.env.Local(to.Domain()):
		b.account(ctx, e)
	default:
		b.foreign(ctx, e)
	}
}

// foreign hands over to an external component, or to whoever knows the way to
// another server (RFC 6120 §10.4).
func (b *bundle) foreign(ctx context.Context, e *channel.Envelope) {
	if c, ok := b.server.env.Sessions.Find(e.Stanza.To.Host()); ok {
		b.deliver(e, c)
		return
	}
	if b.returns(e) {
		return
	}
	for _, p := range b.parts {
		for _, away := range p.absences {
			if why := away(e.Stanza.To.Domain()); why != nil {
				b.refuse(ctx, e, why)
				return
			}
		}
	}
	for _, p := range b.parts {
		for _, g := range p.gateways {
			taken, why := g(ctx, e)
			switch {
			case why != nil:
				b.refuse(ctx, e, why)
				return
			case taken:
				b.server.routed.WithLabelValues("remote").Inc()
				return
			}
		}
	}
	b.fail(ctx, e, stanza.RemoteServerNotFound) // RFC 6120 §10.4.3
}

// returns reports whether the stanza is for a domain that the processor serves.
func (b *bundle) returns(e *channel.Envelope) bool {
	for _, p := range b.parts {
		if !slices.ContainsFunc(p.returns, func(f func(string) bool) bool { return f(e.Stanza.To.Domain()) }) {
			continue
		}
		if e.Hops < channel.MaxHops {
			b.back = append(b.back, &channel.Envelope{Kind: channel.Arrive, Raw: e.Raw, Stanza: e.Stanza, Hops: e.Hops})
		}
		return true
	}
	return false
}

// account is RFC 6121 §8.5.
func (b *bundle) account(ctx context.Context, e *channel.Envelope) {
	st := e.Stanza
	if st.To.Local() == "" { // an answer to the domain itself, e.g. a bounce of our own
		return
	}
	all := b.server.env.Sessions.Account(st.To.Bare())
	if e.Replay {
		b.chosen(ctx, e, all, func(x *sessions.Entry) bool { return x.JID == st.To })
		return
	}
	switch delivery.Decide(st, all) {
	case delivery.ToAll:
		b.chosen(ctx, e, all, (*sessions.Entry).Receives)
	case delivery.ToAvail:
		b.chosen(ctx, e, all, func(x *sessions.Entry) bool { return x.Available })
	case delivery.ToOne:
		b.chosen(ctx, e, all, func(x *sessions.Entry) bool { return x.JID == st.To })
	case delivery.Refuse, delivery.Keep:
		b.copies(ctx, e, nil, all)
		if e.Pending == 0 {
			b.fail(ctx, e, stanza.ServiceUnavailable)
			return
		}
		b.server.routed.WithLabelValues("kept").Inc()
	case delivery.Drop:
		b.server.routed.WithLabelValues("dropped").Inc()
	}
}

// chosen delivers to the sessions that pick takes, but keeps a stored message
// back from a session whose older ones are still on their way.
func (b *bundle) chosen(ctx context.Context, e *channel.Envelope, all []*sessions.Entry, pick func(*sessions.Entry) bool) {
	takes := func(x *sessions.Entry) bool {
		if !pick(x) {
			return false
		}
		return e.Replay || !b.held(x, e.Pending)
	}
	to := all // nearly always: one session, and it takes it
	switch {
	case len(all) > 1:
		to = make([]*sessions.Entry, 0, len(all))
		for _, x := range all {
			if takes(x) {
				to = append(to, x)
			}
		}
	case len(all) == 1 && !takes(all[0]):
		to = nil
	}
	b.deliver(e, to...)
	if !e.Replay {
		b.copies(ctx, e, to, all)
	}
}

// held reports whether a stored message has to stay back from a session of
// this node because of a replay. Another node's session is that one's business:
// it looks when the message lands there.
func (b *bundle) held(x *sessions.Entry, row int64) bool {
	env := &b.server.env
	if row == 0 || x.Node != env.Node {
		return false
	}
	return x.Had(row) || x.Replaying && env.Sessions.Holds(x.Ref, row)
}

// land takes what another node has routed to sessions of this one.
func (b *bundle) land(e *channel.Envelope) {
	if e.Pending == 0 {
		b.out = append(b.out, e)
		return
	}
	e.To = slices.DeleteFunc(e.To, func(ref sessions.Ref) bool {
		x, ok := b.server.env.Sessions.Find(ref.JID)
		return ok && x.Ref == ref && b.held(x, e.Pending) // one that has just ended: its streamer gives it back
	})
	if len(e.To) > 0 {
		b.out = append(b.out, e)
	}
}

func (b *bundle) copies(ctx context.Context, e *channel.Envelope, chosen, all []*sessions.Entry) {
	if e.Stanza.Kind != stanza.Message || len(all) == len(chosen) {
		return
	}
	c := &Copied{Stanza: e.Stanza, Account: e.Stanza.To.Bare(), Session: e.Session, Private: e.Private, Raw: e.Raw, Edits: e.Edits, Chosen: chosen, All: all}
	for _, p := range b.parts {
		for _, f := range p.copiers {
			var more []*channel.Envelope
			b.server.protect(e, func() { more = f(ctx, c) }) // the message itself is delivered without
			b.out = append(b.out, more...)
		}
	}
}

// deliver turns the envelope into one that is addressed to the sessions. Sessions with a negative
// priority get it without its row: they never consume (RFC 6121 §8.5.2.1.1).
// One that has not sent presence gets only what is addressed to it alone, and
// consumes that.
func (b *bundle) deliver(e *channel.Envelope, to ...*sessions.Entry) {
	if len(to) == 0 {
		return
	}
	e.Kind, e.Class, e.Solicited = channel.Deliver, channel.ClassOf(e.Stanza), e.Solicited || e.Replay
	var only []sessions.Ref
	for _, x := range to {
		if e.Pending != 0 && x.Available && x.Priority < 0 {
			only = append(only, x.Ref)
			continue
		}
		e.Address(x.Ref, len(to))
	}
	if len(e.To) > 0 {
		b.out = append(b.out, e)
	}
	if len(only) > 0 {
		n := *e
		n.To, n.Pending = only, 0
		b.out = append(b.out, &n)
	}
	b.server.delivered.Add(float64(len(to)))
}

// fail answers with an error, unless the stanza is one that must not be
// answered (RFC 6120 §8.3.1).
func (b *bundle) fail(ctx context.Context, e *channel.Envelope, c stanza.Condition) {
	b.refuse(ctx, e, stanza.NewError(c, ""))
}

func (b *bundle) refuse(ctx context.Context, e *channel.Envelope, why *stanza.Error) {
	b.server.routed.WithLabelValues("refused").Inc()
	if e.Hops >= channel.MaxHops || e.Stanza.Kind == stanza.Presence && !subscription(e.Stanza.Type) {
		return
	}
	if st := e.Stanza; e.Session.IsZero() && st.Kind == stanza.IQ && (st.Type == stanza.TypeGet || st.Type == stanza.TypeSet) {
		b.back = append(b.back, &channel.Envelope{Kind: channel.Undelivered, Session: sessions.Ref{JID: st.To}, Raw: e.Raw, Stanza: st, Hops: e.Hops})
		return
	}
	reply := e.Stanza.ErrorReply(why)
	if reply == nil || reply.To.IsZero() {
		return
	}
	b.route(ctx, &channel.Envelope{Kind: channel.Route, Raw: reply.Raw, Stanza: reply, Hops: e.Hops + 1})
}

// subscription reports whether somebody waits for what becomes of the presence
// (RFC 6121 §3.1.2); a broadcast is not answered with errors.
func subscription(typ string) bool {
	switch typ {
	case stanza.TypeSubscribe, stanza.TypeSubscribed, stanza.TypeUnsubscribe, stanza.TypeUnsubscribed:
		return true
	}
	return false
}
