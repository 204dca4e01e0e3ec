// Package processor is stage 3: components do the work.
//
// A batch is what one read of one session brought. Its stanzas are handled in
// order; messages collect what has to be stored and are committed together,
// any other stanza behind them is a barrier: commit, route, then run it.
// Control envelopes (Bind, Unbind, Change, Acked, Undelivered) travel the same
// road and become hooks. How far a session has come is committed with its rows
// (Keeper), so that a restart forgets neither.
//
//	client's stanza   → Outgoing hooks → addressed to
//	  a domain of ours  → IQ table, ToServer hooks
//	  a local account   → Incoming hooks → stored → router
//	  anybody else      → router
package processor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/parser/stanza"
	"parley/plugins"
	"parley/router/channel"
	"parley/router/sessions"
)

// Name is the Server's name in configurations.
const Name = "processor"

// Plugin provides the Server.
var Plugin = plugins.Plugin{
	Name:  Name,
	Doc:   "Dispatches stanzas to components.",
	Serve: &plugins.ServerMaker{Name: Name, Defaults: defaults(), New: newServer},
}

// Conflict is a policy for a full JID that is bound already (RFC 6120 §7.7.2.2).
type Conflict string

// The policies.
const (
	Replace Conflict = "replace" // the newest session wins, the old one gets <conflict/>
	Refuse  Conflict = "refuse"  // the newest session gets a <conflict/> error
	Rename  Conflict = "rename"  // the newest session gets another resource
)

// Config is the Server's section.
type Config struct {
	ResourceConflict Conflict           `yaml:"resource_conflict" enum:"replace,refuse,rename" reload:"restart" doc:"What happens when a client asks for a resource that is in use: replace ends the old session, refuse answers with an error, rename picks another resource."`
	MaxResources     int                `yaml:"max_resources" min:"1" max:"1000" reload:"restart" doc:"Sessions that one account may have at the same time."`
	Deployment       plugins.Deployment `yaml:"deployment" reload:"restart" doc:"How the Server is joined to the others."`
}

func defaults() *Config {
	return &Config{ResourceConflict: Replace, MaxResources: 10, Deployment: plugins.Deployment{Type: "local"}}
}

// Component works in the processor.
type Component interface {
	plugins.Component
	Register(*Registrar)
}

// Server is the stage.
type Server struct {
	env   plugins.Env
	cfg   Config
	log   *slog.Logger
	links plugins.Links
	asks  *asks

	table atomic.Pointer[table]
	mu    sync.Mutex // guards parts and the replacing of table
	parts []*Registrar

	retired   plugins.Retired // tables that may still be run in
	takeovers takeovers
	sights    atomic.Int64 // of sessions, that are waited for
	poison    poison
	metrics   metrics
}

type metrics struct {
	stanzas *prometheus.CounterVec
	byKind  [stanza.IQ + 1]prometheus.Counter // of stanzas
	panics  prometheus.Counter
	refused prometheus.Counter
}

func newServer(env plugins.Env, c plugins.Config, links plugins.Links) (plugins.Server, error) {
	s := &Server{env: env, links: links, log: env.Log}
	s.cfg = *defaults()
	if err := c.Decode(&s.cfg); err != nil {
		return nil, err
	}
	s.asks = newAsks(env, s.protect)
	env.Owners.Handle(topicOwned, s.owned)
	s.table.Store(newTable(nil))
	s.metrics = metrics{
		stanzas: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_stanzas_total", Help: "Stanzas that entered the processor."}, []string{"kind"}),
		panics:  prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_handler_panics_total", Help: "Handlers that panicked."}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_messages_not_stored_total", Help: "Messages refused because they could not be stored."}),
	}
	for _, m := range []prometheus.Collector{s.metrics.stanzas, s.metrics.panics, s.metrics.refused} {
		if err := env.Metrics.Register(m); err != nil {
			return nil, fmt.Errorf("processor metrics: %w", err)
		}
	}
	for k := stanza.Message; k <= stanza.IQ; k++ {
		s.metrics.byKind[k] = s.metrics.stanzas.WithLabelValues(k.String())
	}
	return s, nil
}

// Serve implements plugins.Server.
func (s *Server) Serve(ctx context.Context) error {
	s.takeovers.start(ctx)
	defer s.takeovers.finish()
	return s.links.In.Receive(ctx, s.process)
}

// Attach implements plugins.Server.
func (s *Server) Attach(name string, c plugins.Component) (func(context.Context) error, error) {
	pc, ok := c.(Component)
	if !ok {
		return nil, fmt.Errorf("%s: a processor component needs Register", name)
	}
	r := &Registrar{server: s, name: name}
	pc.Register(r)
	s.replace(name, r)
	if err := s.retired.Wait(context.Background()); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error { return s.detach(ctx, r) }, nil
}

// replace puts r in the place of the component called name; r nil: takes it away.
func (s *Server) replace(name string, r *Registrar) {
	s.mu.Lock()
	defer s.mu.Unlock()
	parts := slices.DeleteFunc(slices.Clone(s.parts), func(p *Registrar) bool { return p.name == name })
	if r != nil {
		parts = append(parts, r)
	}
	slices.SortFunc(parts, func(a, b *Registrar) int { return strings.Compare(a.name, b.name) })
	s.parts = parts
	s.retired.Add(s.table.Swap(newTable(parts)).Usage)
}

// detach takes r away, unless a newer one of its name has replaced it. When ctx
// ends too early it can be called again: it still waits for everybody.
func (s *Server) detach(ctx context.Context, r *Registrar) error {
	s.mu.Lock()
	here := slices.Contains(s.parts, r)
	s.mu.Unlock()
	if here {
		s.replace(r.name, nil)
	}
	if err := s.retired.Wait(ctx); err != nil {
		return fmt.Errorf("%s is still at work: %w", r.name, err)
	}
	return nil
}

// process is the stage's channel.Handler.
func (s *Server) process(ctx context.Context, batch []*channel.Envelope) error {
	if !s.env.Held() { // nothing of it is ever acknowledged: its clients send it again elsewhere (D1)
		return nil
	}
	t := s.acquire()
	defer t.Leave()
	run := newRun(s, t, len(batch))
	for _, e := range batch {
		if e.Kind == channel.Stanza && e.Stanza != nil && e.Stanza.Kind == stanza.Message {
			run.receive(ctx, e)
			continue
		}
		run.flush(ctx)
		s.control(ctx, run, e)
		run.flush(ctx)
	}
	run.flush(ctx)
	return nil
}

func (s *Server) control(ctx context.Context, run *run, e *channel.Envelope) {
	switch e.Kind {
	case channel.Stanza:
		run.receive(ctx, e)
	case channel.Bind:
		s.bind(ctx, run, e)
	case channel.Unbind:
		if e.Session.JID.IsZero() { // of all that a front had which has gone
			s.takeovers.giveUpSlot(sessions.SlotOf(e.Session.Conn))
			return
		}
		s.takeovers.giveUp(e.Session)
		s.unbind(ctx, run, e)
		run.handled(e.Session, e.Seq)
	case channel.Change:
		s.change(ctx, run, e)
	case channel.Acked:
		tell(ctx, run, Acked, e.Session, Rows{Session: e.Session, IDs: e.Rows})
	case channel.Undelivered:
		run.undelivered(ctx, e)
	case channel.Poisoned:
		run.poisoned(ctx, e)
	case channel.Note:
		s.noted(ctx, run, e)
	case channel.Arrive:
		run.arrive(ctx, &Flow{Stanza: e.Stanza, Hops: e.Hops + 1})
	case channel.Close, channel.Handled:
		run.pass(e)
	default:
		s.log.Error("envelope of a kind that does not belong here", "kind", e.Kind.String())
	}
}

// bind gives the stream its address (RFC 6120 §7.7.2.2) and answers with
// Handled, whose Reason tells why not.
func (s *Server) bind(ctx context.Context, run *run, e *channel.Envelope) {
	old := s.ousts(e)
	switch wanted := s.takeovers.wanted(e.Session.JID); {
	case old == nil && !wanted:
		s.bindNow(ctx, run, e, time.Time{})
	case old != nil && !wanted && s.dead(old):
		s.bindNow(ctx, run, e, old.BoundAt.Add(time.Microsecond))
	default:
		s.takeovers.begin(e.Session, func(wait, ctx context.Context) {
			_ = s.protect(func() error { s.takeOver(wait, ctx, e, old); return nil }) // it is logged
		})
	}
}

// bindNow is bind when nobody has to be waited for; after is what the session has to be
// later than.
func (s *Server) bindNow(ctx context.Context, run *run, e *channel.Envelope, after time.Time) {
	answer := *e
	answer.Kind = channel.Handled
	var old *sessions.Entry
	if !e.State.Paused || e.State.BoundAt.IsZero() { // one of before the start is as old as it was
		e.State.BoundAt = s.env.Clock.Now()
	}
	if e.State.BoundAt.Before(after) { // that node's clock is ahead
		e.State.BoundAt = after
	}
	coming := sessions.Entry{Ref: e.Session, State: *e.State}
	tell(ctx, run, Binding, e.Session, &coming)
	old, answer.Reason = s.env.Sessions.BindIf(e.Session, coming.State, func(all []*sessions.Entry) string { return s.bindReason(e, all) })
	if answer.Reason == "" {
		if old != nil {
			run.pass(&channel.Envelope{Kind: channel.Close, To: []sessions.Ref{old.Ref}, Reason: string(stanza.StreamConflict)})
			last := *old
			last.Paused = false // it ends here, also when it has begun before the process
			tell(ctx, run, Unbound, old.Ref, &last)
		}
		if entry, ok := s.env.Sessions.Find(e.Session.JID); ok {
			tell(ctx, run, Bound, e.Session, entry)
		}
		s.env.Sessions.Show(e.Session)
	}
	answer.State = nil
	run.pass(&answer)
}

func (s *Server) bindReason(e *channel.Envelope, all []*sessions.Entry) string {
	if e.State.Kind != sessions.Client { // its listener has a policy of its own
		return ""
	}
	if i := slices.IndexFunc(all, func(x *sessions.Entry) bool { return x.JID == e.Session.JID }); i >= 0 {
		if e.State.Paused && all[i].Node != e.Session.Node {
			return string(stanza.Conflict)
		}
		switch s.cfg.ResourceConflict {
		case Refuse:
			return string(stanza.Conflict)
		case Rename:
			return string(Rename)
		}
		return ""
	}
	if len(all) >= s.cfg.MaxResources { // RFC 6120 §13.12
		return string(stanza.ResourceConstraint)
	}
	return ""
}

func (s *Server) unbind(ctx context.Context, run *run, e *channel.Envelope) {
	defer s.takeovers.ends(e.Session)()
	entry, ok := s.env.Sessions.Unbind(e.Session)
	now, taken := s.env.Sessions.Find(e.Session.JID)
	if !ok {
		if e.State == nil || taken { // replaced by a newer session: it has been said
			return
		}
		entry = &sessions.Entry{Ref: e.Session, State: *e.State} // its node is gone, and the next life of that one knows nothing of it
	}
	last := *entry
	if taken && now.Available { // it was ousted: contacts see the one that has its address
		last.Available = false
	}
	last.Paused = e.Reason == string(stanza.StreamSystemShutdown)
	last.Buried = e.Reason == channel.FrontLost
	tell(ctx, run, Unbound, e.Session, &last)
	s.env.Sessions.Show(e.Session)
}

// noted hands a feature what its part in the streamer has to say.
func (s *Server) noted(ctx context.Context, run *run, e *channel.Envelope) {
	for _, r := range run.table.parts {
		if r.name != e.Reason || r.noted == nil {
			continue
		}
		_ = s.protect(func() error { r.noted(ctx, e.Session, e.Raw); return nil }) // it is logged
	}
}

// change notes whether a session has a connection.
func (s *Server) change(ctx context.Context, run *run, e *channel.Envelope) {
	entry, ok := s.env.Sessions.Change(e.Session, func(st *sessions.State) { st.Hibernated = e.State.Hibernated })
	if !ok || entry.Hibernated {
		return
	}
	tell(ctx, run, Resumed, e.Session, entry)
	if entry.Paused {
		s.env.Sessions.Change(e.Session, func(st *sessions.State) { st.Paused, st.Buried = false, false })
	}
}

func (s *Server) send(ctx context.Context, batch []*channel.Envelope) {
	if len(batch) == 0 {
		return
	}
	err := s.protect(func() error { return s.links.Out("router").Send(ctx, batch) })
	if err != nil && !errors.Is(err, context.Canceled) {
		s.log.Error("router does not take stanzas", "err", err, "count", len(batch))
	}
}
