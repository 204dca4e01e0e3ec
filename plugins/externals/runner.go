package externals

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
)

// State is where a component is in its life.
type State string

// The states.
const (
	Starting State = "starting" // its process runs, it is not healthy yet
	Healthy  State = "healthy"  // it has a stream and answers pings
	Waiting  State = "waiting"  // it has ended, and is started again in a while
	Failed   State = "failed"   // it has ended too often, and is left alone
	NoDoor   State = "no-door"  // there is no address where it could connect to this process
)

// Status describes one component.
type Status struct {
	Name     string    `json:"name"`
	Domain   string    `json:"domain"`
	Version  string    `json:"version"`
	Node     string    `json:"node"`
	State    State     `json:"state"`
	Since    time.Time `json:"since"`
	PID      int       `json:"pid,omitempty"`
	Restarts int       `json:"restarts"`     // in a row
	Limit    int       `json:"max_restarts"` // of them
	Error    string    `json:"error,omitempty"`
}

// order is something that is done to a component between two looks at it.
type order struct {
	do    func(context.Context) error
	reply chan error
}

// Of looks at a component.
const (
	lookEach = 200 * time.Millisecond // while it is not healthy
	pingWait = 5 * time.Second
	misses   = 3 // pings in a row without an answer
)

// runner lives for one component. Its goroutine alone touches what is not behind mu.
type runner struct {
	s      *supervisor
	kept   kept
	log    *logfile
	orders chan order
	stop   context.CancelFunc
	done   chan struct{}

	m        *Manifest
	proc     *process
	began    time.Time // of proc
	healthy  time.Time // since when; zero: it is not
	missed   int
	failures int
	next     time.Time // of the next start

	mu     sync.Mutex
	status Status
}

// run is the component's life until ctx ends; then so does its process.
func (r *runner) run(ctx context.Context) {
	defer close(r.done)
	defer r.log.close()
	defer r.halt(context.WithoutCancel(ctx))
	for {
		var exited <-chan struct{}
		if r.proc != nil {
			exited = r.proc.exited
		}
		select {
		case <-ctx.Done():
			return
		case o := <-r.orders:
			o.reply <- o.do(ctx)
		case <-exited:
			err := r.proc.err
			r.proc = nil
			r.failed(fmt.Errorf("it has ended: %w", errors.Join(err, errEnded)))
		case <-r.s.after(r.pause()):
			r.look(ctx)
		}
	}
}

var errEnded = errors.New("see parley component logs")

func (r *runner) pause() time.Duration {
	if r.healthy.IsZero() {
		return lookEach
	}
	return r.m.interval()
}

// look is one look at it: it is started, found well, or ended.
func (r *runner) look(ctx context.Context) {
	now := r.s.env.Clock.Now()
	switch {
	case r.proc == nil && r.failures >= r.s.cfg.Restarts:
		r.is(Failed, nil)
	case r.proc == nil && r.s.doors.Door() == "":
		r.is(NoDoor, nil)
	case r.proc == nil && !now.Before(r.next):
		if err := r.start(); err != nil {
			r.failed(err)
		}
	case r.proc == nil:
	case r.well(ctx):
		r.missed = 0
		if r.healthy.IsZero() {
			r.healthy = now
			r.is(Healthy, nil)
		}
		if now.Sub(r.healthy) >= r.s.cfg.Stable && r.failures != 0 {
			r.failures = 0
			r.is(Healthy, nil)
		}
	case r.healthy.IsZero() && now.Sub(r.began) < r.s.cfg.Start:
	case !r.healthy.IsZero() && r.missed+1 < misses:
		r.missed++
	default:
		r.halt(ctx)
		r.failed(errUnwell)
	}
}

var errUnwell = errors.New("it has no stream, or does not answer pings")

// start starts the version that counts.
func (r *runner) start() error {
	host, port, err := net.SplitHostPort(r.s.doors.Door())
	if err != nil {
		return fmt.Errorf("door of components: %w", err)
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	_, _ = fmt.Fprintf(r.log, "--- version %s starts at %s\n", r.m.Version, r.s.env.Clock.Now().UTC().Format(time.RFC3339))
	r.proc, err = launch(filepath.Join(r.s.dir(r.m.Name), r.kept.Version), r.m, environment(r.m, r.kept.Secret, host, port), r.log)
	if err != nil {
		return err
	}
	r.began, r.healthy, r.missed = r.s.env.Clock.Now(), time.Time{}, 0
	r.is(Starting, nil)
	return nil
}

// halt ends its process in order.
func (r *runner) halt(ctx context.Context) {
	if r.proc != nil {
		r.proc.end(ctx, r.s.after(r.s.cfg.Grace))
	}
	r.proc, r.healthy = nil, time.Time{}
}

// failed says when it is started again: later each time, and not at the same
// moment as others.
func (r *runner) failed(err error) {
	r.healthy = time.Time{}
	wait := min(r.s.cfg.MaxBackoff, r.s.cfg.Backoff<<min(r.failures, 16))
	r.failures++
	r.next = r.s.env.Clock.Now().Add(wait)
	_, _ = fmt.Fprintf(r.log, "--- %v\n", err)
	r.s.env.Log.Warn("component failed", "component", r.m.Name, "version", r.m.Version, "failures", r.failures, "again", r.next, "err", err)
	r.is(Waiting, err)
}

// is says how it is; an error stays to be seen until it is healthy.
func (r *runner) is(s State, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := &r.status
	if st.State != s {
		st.Since = r.s.env.Clock.Now()
	}
	st.State, st.Restarts, st.PID, st.Version = s, r.failures, 0, r.kept.Version
	if r.proc != nil {
		st.PID = r.proc.pid
	}
	switch {
	case err != nil:
		st.Error = err.Error()
	case s == Healthy:
		st.Error = ""
	}
}

func (r *runner) now() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.status
}

// well reports whether it has a stream and answers a ping (XEP-0199 §4.3), where
// this process can ask; an error that it sends is an answer, too.
func (r *runner) well(ctx context.Context) bool {
	if !r.s.doors.Here(r.m.Domain) {
		return false
	}
	reg := r.s.asker.reg.Load()
	at, err := jid.Parse(r.m.Domain)
	if reg == nil || err != nil {
		return err == nil
	}
	answered := make(chan bool, 1)
	ping := stanza.Make(stanza.IQ, stanza.TypeGet, jid.MustParse(r.s.env.Domains.List()[0]), at, reg.AskID(), stanza.El("urn:xmpp:ping", "ping"))
	reg.Ask(ctx, ping, func(st *stanza.Stanza, err error) { answered <- err == nil || st != nil && r.s.doors.Here(r.m.Domain) })
	select {
	case ok := <-answered:
		return ok
	case <-r.s.after(pingWait):
	case <-r.proc.exited:
	case <-ctx.Done():
	}
	return false
}

// becomesWell waits until it is healthy.
func (r *runner) becomesWell(ctx context.Context) error {
	late := r.s.after(r.s.cfg.Start)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-late:
			return errUnwell
		case <-r.proc.exited:
			return fmt.Errorf("it has ended: %w", errors.Join(r.proc.err, errEnded))
		case <-r.s.after(lookEach):
			if r.well(ctx) {
				r.healthy = r.s.env.Clock.Now()
				r.is(Healthy, nil)
				return nil
			}
		}
	}
}

// restart begins anew, as if it had never failed.
func (r *runner) restart(ctx context.Context) error {
	r.halt(ctx)
	r.failures, r.next = 0, time.Time{}
	r.look(ctx)
	return nil
}

// upgrade goes on with another version, which is installed, or back to the one
// before when it does not become healthy.
func (r *runner) upgrade(ctx context.Context, m *Manifest) error {
	old, was := r.m, r.kept
	r.halt(ctx)
	err := r.become(ctx, m, kept{Version: m.Version, Secret: was.Secret})
	if err == nil {
		if err = r.start(); err == nil {
			err = r.becomesWell(ctx)
		}
	}
	if err == nil {
		r.failures = 0
		return nil
	}
	r.halt(ctx)
	_, _ = fmt.Fprintf(r.log, "--- version %s is taken back: %v\n", m.Version, err)
	back := r.become(context.WithoutCancel(ctx), old, was)
	r.failures, r.next = 0, time.Time{}
	r.look(ctx)
	return fmt.Errorf("%w: %s: %w", errRolledBack, m.Version, errors.Join(err, back))
}

// become makes a version the one that counts, after a restart, too.
func (r *runner) become(ctx context.Context, m *Manifest, k kept) error {
	r.m, r.kept = m, k
	return errors.Join(r.s.grant(ctx, m, k.Secret), r.s.keep(m.Name, k))
}
