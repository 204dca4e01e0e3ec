// Package stream is stage 1: it accepts connections, secures and authenticates
// them, binds them to an address and frames their bytes.
//
// A Conn is one transport with one reader (a goroutine, or once it is bound a
// turn on a poller's worker whenever something has come); it walks through the
// phases of RFC 6120 (header, STARTTLS, SASL, bind) with SASL2 and Bind 2 as
// the shorter road through the same code. A Session is what was bound: it
// survives the Conn when stream management lets it (XEP-0198 §5), and the
// process when somebody keeps it meanwhile (restart.go). What one
// read brings is one batch into the pipeline; what comes back is appended to
// the recipients' transports, and each touched one is flushed once per batch.
package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/router/channel"
	"parley/router/sessions"
)

// Name is the Server's name in configurations.
const Name = "streamer"

// Plugin provides the Server.
var Plugin = plugins.Plugin{
	Name:  Name,
	Doc:   "Accepts, secures, authenticates and frames streams.",
	Serve: &plugins.ServerMaker{Name: Name, Defaults: defaults(), New: newServer},
}

// Component works in the streamer.
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
	jids  *jid.Cache
	certs *certificates

	mu        sync.Mutex // guards parts, addresses and the replacing of table
	parts     []*Registrar
	addresses map[string]string
	open      chan struct{} // closed while the doors are open
	table     atomic.Pointer[table]
	retired   plugins.Retired // tables that may still be run in
	sessions  sessionTable
	conns     connSet
	paces     *paces
	lastID    atomic.Uint64
	batches   atomic.Uint64 // of deliveries, so far

	resumes  resumeTable
	acks     acker
	errands  errands
	returns  returns
	serving  atomic.Pointer[serving]
	draining atomic.Bool // nobody is let in
	metrics  *metrics
	shed     *shedder
}

// serving is one call of Serve.
type serving struct {
	ctx   context.Context
	tasks sync.WaitGroup
	doors openDoors
	polls []*poller // empty: each connection has a goroutine of its own
}

// maxPollers is how many pollers there are at most; one keeps several cores
// busy.
const maxPollers = 8

func (s *Server) newServing(ctx context.Context) *serving {
	sv := &serving{ctx: ctx}
	for range min(runtime.GOMAXPROCS(0), maxPollers) {
		p, err := newPoller()
		if err != nil {
			s.log.Info("a goroutine for each connection", "why", err)
			break
		}
		sv.polls = append(sv.polls, p)
	}
	return sv
}

func (sv *serving) end() {
	for _, p := range sv.polls {
		p.close()
	}
}

// poller returns the one that watches c's socket; nil: none does.
func (s *Server) poller(c *Conn) *poller {
	sv := s.serving.Load()
	if sv == nil || len(sv.polls) == 0 {
		return nil
	}
	return sv.polls[c.number%uint64(len(sv.polls))]
}

func newServer(env plugins.Env, c plugins.Config, links plugins.Links) (plugins.Server, error) {
	s := &Server{env: env, cfg: *defaults(), paces: &paces{}, log: env.Log, links: links, jids: jid.NewCache(1 << 16)}
	if err := c.Decode(&s.cfg); err != nil {
		return nil, err
	}
	m, err := newMetrics(env.Metrics, s.held)
	if err != nil {
		return nil, err
	}
	s.metrics, s.shed = m, newShedder()
	s.certs, err = newCertificates(s.cfg.TLS, env)
	if err != nil {
		return nil, err
	}
	env.Domains.Watch(s.rehosted)
	s.conns.limits = s.cfg.Connections
	s.acks.wake = make(chan struct{}, 1)
	s.open = make(chan struct{})
	s.table.Store(newTable(nil))
	// Connection numbers are not reused across restarts, so that a late
	// envelope cannot reach a stranger.
	s.lastID.Store(uint64(env.Clock.Now().UnixMicro()))
	return s, nil
}

// Attach implements plugins.Server.
func (s *Server) Attach(name string, c plugins.Component) (func(context.Context) error, error) {
	sc, ok := c.(Component)
	if !ok {
		return nil, fmt.Errorf("%s: a streamer component needs Register", name)
	}
	r := &Registrar{server: s, name: name}
	sc.Register(r)
	s.replace(func(p *Registrar) bool { return p.name == name }, r)
	if err := s.retired.Wait(context.Background()); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		s.replace(func(p *Registrar) bool { return p == r }, nil)
		if err := s.retired.Wait(ctx); err != nil {
			return fmt.Errorf("%s is still at work: %w", name, err)
		}
		return nil
	}, nil
}

func (s *Server) replace(old func(*Registrar) bool, fresh *Registrar) {
	s.mu.Lock()
	defer s.mu.Unlock()
	parts := slices.DeleteFunc(slices.Clone(s.parts), old)
	if fresh != nil {
		parts = append(parts, fresh)
	}
	slices.SortFunc(parts, func(a, b *Registrar) int { return strings.Compare(a.name, b.name) })
	s.parts = parts
	s.retired.Add(s.table.Swap(newTable(parts)).Usage)
}

// Serve implements plugins.Server: it listens until ctx is done, then tells
// every client that the system shuts down and waits for them to leave.
func (s *Server) Serve(ctx context.Context) error {
	receiving, stopReceiving := context.WithCancel(context.WithoutCancel(ctx))
	defer stopReceiving()
	sv := s.newServing(ctx)
	defer sv.end()
	s.serving.Store(sv)
	defer s.serving.Store(nil)

	var back sync.WaitGroup
	back.Go(func() {
		if err := s.links.In.Receive(receiving, s.deliver); err != nil {
			s.log.Error("deliveries ended", "err", err)
		}
	})
	back.Go(func() { s.sendAcks(receiving) })
	back.Go(func() { s.certs.watch(receiving) })
	back.Go(func() { s.watchSessions(receiving) })
	back.Go(func() { s.watchMemory(receiving) })

	s.revive(ctx)
	err := s.listen(ctx, sv)
	s.conns.shutdown(s.cfg.Timeouts.Drain)
	sv.tasks.Wait()
	s.pauseAll()
	s.errands.wait()
	stopReceiving()
	back.Wait()
	return err
}

// keepAlive finds peers that are gone by TCP itself (reliability row 6). Go's
// own 15 s would wake a telephone four times as often.
func keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 15 * time.Second, Count: 4}
}

// Doors waits until the server listens and returns where, by name (c2s,
// c2s-tls, http, https): what was configured, or what the system chose for
// port 0.
func (s *Server) Doors(ctx context.Context) (map[string]string, error) {
	s.mu.Lock()
	opened := s.open
	s.mu.Unlock()
	select {
	case <-opened:
		return s.Addresses(), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// accept serves XMPP clients over TCP; direct is TLS from the first byte
// (XEP-0368).
func (s *Server) accept(direct bool) func(context.Context, net.Listener) {
	return func(ctx context.Context, l net.Listener) {
		defer context.AfterFunc(ctx, func() { _ = l.Close() })()
		var streams sync.WaitGroup
		defer streams.Wait()
		Accept(ctx, l, s.env.Clock, s.log, s.refuse(direct), func(c net.Conn) {
			streams.Go(func() { s.serveTCP(ctx, c, direct) })
		})
	}
}

func (s *Server) serveTCP(ctx context.Context, c net.Conn, direct bool) {
	if c, err := s.unwrap(ctx, c); err == nil {
		s.serveSocket(ctx, c, direct)
	}
}

// serveSocket is serveTCP for a connection whose peer is known.
func (s *Server) serveSocket(ctx context.Context, c net.Conn, direct bool) {
	t := NewTCP(c).(*tcp)
	if direct {
		if err := s.shake(ctx, t, s.certs.client(true, "")); err != nil {
			s.log.Debug("direct TLS failed", "remote", c.RemoteAddr().String(), "err", err)
			t.Close(0)
			return
		}
		t.name = "tls"
	}
	s.Serve1(ctx, t, clientProfile{})
}

// shake starts TLS on a connection that begins with it (XEP-0368 §3).
func (s *Server) shake(ctx context.Context, t *tcp, cfg *tls.Config) error {
	defer context.AfterFunc(ctx, func() { _ = t.sock.Close() })()
	if s.shed.short.Load() { // no TLS, no words
		s.metrics.refused.WithLabelValues("memory").Inc()
		return errMemory
	}
	origin := OriginOf(t.RemoteAddr())
	if err := s.conns.reserve(origin); err != nil {
		return err
	}
	defer s.conns.release(origin)
	return t.StartTLS(cfg, s.cfg.Timeouts.Handshake)
}

// Serve1 runs one stream over the transport until it is bound or has ended; a
// bound one goes on, and the Server waits for it when it stops.
func (s *Server) Serve1(ctx context.Context, t Transport, p Profile) {
	ours, initiated := p.(Initiator) // what we begin ourselves goes on while nobody is let in
	switch {
	case initiated:
	case s.draining.Load():
		s.metrics.refused.WithLabelValues("draining").Inc()
		s.turnAway(t, p, shutdown())
		return
	case s.shed.short.Load():
		s.metrics.refused.WithLabelValues("memory").Inc()
		s.turnAway(t, p, noRoom("the server is short of memory"))
		return
	}
	c := newConn(s, t, p)
	if err := s.conns.add(c); err != nil {
		s.metrics.refused.WithLabelValues("connections").Inc()
		s.log.Info("connection refused", "remote", t.RemoteAddr().String(), "err", err)
		t.Close(0)
		if initiated {
			ours.Ended()
		}
		return
	}
	c.run(ctx)
}

// spareLimit is how long a request may take when there is no descriptor left:
// the next one waits for it.
const spareLimit = 5 * time.Second

// serveHTTP serves what components have put on the HTTP doors.
func (s *Server) serveHTTP(secure bool) func(context.Context, net.Listener) {
	return func(ctx context.Context, l net.Listener) {
		srv := &http.Server{
			Handler:           http.HandlerFunc(s.handleHTTP),
			ReadHeaderTimeout: 10 * time.Second,
			IdleTimeout:       time.Minute,
			MaxHeaderBytes:    16 << 10,
			ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
			ConnState:         hijacked,
		}
		l = bounded{s.unwrapping(ctx, plugins.Spared(l, spareLimit)), s}
		if secure {
			if s.cfg.ALPN {
				both := s.byProtocol(ctx, l)
				defer both.tasks.Wait()
				l = both
			}
			l = tls.NewListener(l, s.certs.web())
		}
		over := make(chan struct{})
		stop := context.AfterFunc(ctx, func() { s.endHTTP(srv); close(over) })
		defer func() {
			if !stop() {
				<-over
			}
		}()
		defer func() { _ = l.Close() }()
		if err := srv.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) && ctx.Err() == nil {
			s.log.Error("HTTP door failed", "err", err)
		}
	}
}

// endHTTP ends the requests of an HTTP door when the streams have gone: those
// over BOSH are told in the answers to theirs that the Server stops.
func (s *Server) endHTTP(srv *http.Server) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(s.cfg.Timeouts.Close); s.conns.len() > 0 && time.Now().Before(end); {
		<-tick.C
	}
	_ = srv.Close()
}

func (s *Server) handleHTTP(w http.ResponseWriter, r *http.Request) {
	t := s.acquire()
	if h, _ := t.http.Handler(r); isLasting(h) {
		t.Leave()
		h.ServeHTTP(w, r)
		return
	}
	defer t.Leave()
	t.http.ServeHTTP(w, r)
}

func isLasting(h http.Handler) bool {
	_, ok := h.(lasting)
	return ok
}

// deliver is the channel.Handler of the way back.
func (s *Server) deliver(ctx context.Context, batch []*channel.Envelope) error {
	due := touched{batch: s.batches.Add(1), list: make([]*Session, 0, 8)}
	last := lastWide(batch)
	for i, e := range batch {
		due.last = i == last
		s.deliverOne(e, &due)
	}
	due.flush()
	return nil
}

// deliverOne survives a panic (reliability row 38): a stored message stays
// pending and is counted against.
func (s *Server) deliverOne(e *channel.Envelope, due *touched) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		s.metrics.panics.Inc()
		s.log.Error("delivery panicked", "panic", fmt.Sprint(p), "kind", e.Kind.String(), "pending", e.Pending, "stack", string(debug.Stack()))
		if e.Kind != channel.Deliver || e.Stanza == nil {
			return
		}
		if e.Splice != channel.Nobody { // one of many recipients was in the way of it
			if e.To = e.To[min(1, len(e.To)):]; len(e.To) > 0 {
				s.deliverOne(e, due)
			}
			return
		}
		came := &channel.Envelope{Kind: channel.Poisoned, Session: e.Session, Raw: e.Raw, Stanza: e.Stanza, Pending: e.Pending, Hops: e.Hops + 1, Reason: fmt.Sprintf("%v (in the streamer)", p)}
		s.later(func(ctx context.Context) {
			if err := s.send(ctx, came); err != nil {
				s.log.Error("poisoned stanza not reported", "err", err)
			}
		})
	}()
	switch e.Kind {
	case channel.Deliver:
		s.hand(e, due)
	case channel.Handled:
		if sess, ok := s.session(e.Session); ok && sess.handled(e) {
			due.add(sess)
		}
	case channel.Close:
		for _, ref := range e.To {
			sess, ok := s.session(ref)
			why := &stanza.StreamError{Condition: stanza.StreamCondition(e.Reason)}
			switch {
			case ok && e.AtOnce:
				s.later(func(ctx context.Context) { sess.retire(ctx, why) })
			case ok:
				sess.closeWith(why)
			}
		}
	case channel.Note:
		s.noted(e)
	default:
		s.log.Error("envelope of a kind that does not belong here", "kind", e.Kind.String())
	}
}

// noted hands a feature what its part in the processor has to say.
func (s *Server) noted(e *channel.Envelope) {
	t := s.acquire()
	defer t.Leave()
	for _, r := range t.parts {
		if r.name == e.Reason && r.noted != nil {
			r.noted(context.Background(), e.To, e.Raw)
		}
	}
}

// hand appends one delivery to each of its recipients. What a client has asked
// for itself waits, on the client's own road, until there is room for it; but not
// what comes from where others wait as well (Splice): to a client that does not read
// it is like what nobody asked for.
func (s *Server) hand(e *channel.Envelope, due *touched) {
	d := deliveryOf(e, due.now(s.env.Clock))
	for ; len(e.To) > 0; e.To = e.To[1:] { // what is left of it goes on after a panic
		ref := e.To[0]
		d.solicited = e.Solicited
		sess, ok := s.session(ref)
		if !ok { // it has just ended
			d.to = string(stanza.AppendTo(nil, e.Splice.Of(ref.JID)))
			s.bounce(ref, d)
			d.to = ""
			continue
		}
		if e.Solicited && sess.crowded(len(d.raw)) {
			if d.solicited = e.Splice == channel.Nobody; d.solicited {
				due.flush()
				sess.await(len(d.raw))
				due.at = 0
			}
		}
		if sess.take(d, e.Splice) && !sess.gathers(e) {
			due.came(sess)
		}
	}
}

// session finds the stream that is meant: another node may give the same number.
func (s *Server) session(ref sessions.Ref) (*Session, bool) {
	sess, ok := s.sessions.find(ref.Conn)
	return sess, ok && sess.ref == ref
}

// send puts control and stanzas on the road.
func (s *Server) send(ctx context.Context, batch ...*channel.Envelope) error {
	return s.links.Out("parser").Send(ctx, batch)
}

// nextRef names a new stream of this node.
func (s *Server) nextRef(at jid.JID) sessions.Ref {
	return s.ref(sessions.Conn(s.env.Slot, s.lastID.Add(1)), at)
}

// ref names a stream of this node.
func (s *Server) ref(conn uint64, at jid.JID) sessions.Ref {
	return sessions.Ref{Node: s.env.Node, Conn: conn, JID: at}
}
