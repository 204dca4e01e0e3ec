package disco

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/processor"
	"parley/router/sessions"
)

// CapsKnown fires when the capabilities that an entity announced are known:
// at once when its hash is in the cache, else when its hash has been verified.
var CapsKnown = processor.NewHook[*Known]("caps-known")

// Known is the event of CapsKnown.
type Known struct {
	JID      jid.JID         // the entity, full
	Session  *sessions.Entry // its entry, when it is a local client
	Account  jid.JID         // the local account that got its presence, when it is not
	Hash     Hash
	Features []string // as Caps.Features
}

// Bounds of what is asked.
const (
	asksAtOnce = 3      // of one hash: who is silent must not hold up the others
	maxWaiting = 50_000 // entities whose hash is not known yet, of all hashes
)

// waiter is an entity whose capabilities are not known yet.
type waiter struct {
	from jid.JID      // whom the question comes from
	at   jid.JID      // whom to ask: the exact JID (XEP-0115 §6.2)
	ref  sessions.Ref // its session; zero: it is elsewhere
	what announcement
}

// unknown is a hash that is being asked for.
type unknown struct {
	waiting []waiter
	next    int // the first one that has not been asked
	open    int // questions without an answer
}

// asker finds out what hashes stand for. The first who announces a hash is
// asked; who answers wrongly or not at all costs the others nothing but the
// time until the next one is asked (XEP-0115 §5.4).
type asker struct {
	caps *Caps
	env  plugins.Env
	log  *slog.Logger
	reg  *processor.Registrar // since Register

	mu      sync.Mutex
	ctx     context.Context //nolint:containedctx // of the component's life: answers come long after the presence
	cancel  context.CancelFunc
	unknown map[Hash]*unknown
	waiting int

	answers *prometheus.CounterVec
}

func (a *asker) init(env plugins.Env, c *Caps) error {
	a.caps, a.env, a.log, a.unknown = c, env, env.Log, map[Hash]*unknown{}
	a.answers = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_caps_answers_total", Help: "Answers of clients that were asked for their capabilities."}, []string{"outcome"})
	if err := env.Metrics.Register(a.answers); err != nil {
		return fmt.Errorf("disco metrics: %w", err)
	}
	return nil
}

func (a *asker) start(ctx context.Context) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ctx, a.cancel = context.WithCancel(ctx)
}

// stop forgets what is being asked; late answers find nobody.
func (a *asker) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cancel != nil {
		a.cancel()
	}
	a.cancel, a.unknown, a.waiting = nil, map[Hash]*unknown{}, 0
}

// want tells who is interested when the hash is known, and asks if it is not.
func (a *asker) want(w waiter) {
	h := w.what.hash
	if features, ok := a.caps.Features(h); ok {
		a.tell(w, features)
		return
	}
	a.mu.Lock()
	if a.cancel == nil || a.waiting >= maxWaiting {
		a.mu.Unlock()
		a.answers.WithLabelValues("not-asked").Inc()
		return
	}
	u := a.unknown[h]
	if u == nil {
		u = &unknown{}
		a.unknown[h] = u
	}
	u.waiting = append(u.waiting, w)
	a.waiting++
	ask := a.nextOf(u)
	a.mu.Unlock()
	a.ask(h, ask)
}

// nextOf returns who is to be asked now; with the lock held.
func (a *asker) nextOf(u *unknown) []waiter {
	n := min(asksAtOnce-u.open, len(u.waiting)-u.next)
	out := u.waiting[u.next : u.next+n]
	u.next += n
	u.open += n
	return out
}

func (a *asker) ask(h Hash, whom []waiter) {
	for _, w := range whom {
		q := stanza.El(stanza.NSDiscoInfo, "query").With("node", w.what.String()) // XEP-0115 §6.2
		iq := stanza.Make(stanza.IQ, stanza.TypeGet, w.from, w.at, a.reg.AskID(), q)
		a.reg.Ask(a.ctx, iq, func(st *stanza.Stanza, err error) { a.answered(h, w, st, err) })
	}
}

// answered takes an answer, right, wrong or missing (XEP-0115 §5.4).
func (a *asker) answered(h Hash, w waiter, st *stanza.Stanza, err error) {
	var features []string
	outcome := "none"
	if err == nil {
		outcome = "wrong"
		features, err = verify(st.Payload(), h)
	}
	if err == nil {
		outcome = "verified"
		a.caps.verified.Set(h, features)
		a.caps.teach(context.Background(), h, features)
	} else {
		a.log.Debug("capabilities not verified", "jid", w.at.String(), "node", w.what.String(), "err", err)
	}
	a.answers.WithLabelValues(outcome).Inc()

	a.mu.Lock()
	u := a.unknown[h]
	if u == nil { // somebody else's answer came first
		a.mu.Unlock()
		return
	}
	u.open--
	var ask, tell []waiter
	if err != nil {
		ask = a.nextOf(u)
	} else {
		tell = u.waiting
	}
	if err == nil || u.open == 0 {
		delete(a.unknown, h)
		a.waiting -= len(u.waiting)
	}
	a.mu.Unlock()

	for _, t := range tell {
		a.tell(t, features)
	}
	a.ask(h, ask)
}

// tell fires CapsKnown, if the entity is still what it was.
func (a *asker) tell(w waiter, features []string) {
	k := &Known{JID: w.at, Account: w.from, Hash: w.what.hash, Features: features}
	if !w.ref.IsZero() {
		e, ok := a.env.Sessions.Find(w.at)
		if !ok || e.Ref != w.ref || HashOf(e) != k.Hash {
			return
		}
		k.Session, k.Account = e, jid.JID{}
	}
	if _, err := processor.Fire(a.ctx, a.reg, CapsKnown, k); err != nil {
		a.log.Error("hook failed", "hook", "caps-known", "jid", w.at.String(), "err", err)
	}
}
