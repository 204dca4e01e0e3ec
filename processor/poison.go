package processor

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/router/channel"
)

// A stanza that makes handlers panic costs its sender an error, and nobody
// else anything. At the poisonTries-th time, sent again or delivered again, it
// is set aside: Poisoned fires, and until the next start no handler sees it any
// more (reliability row 38). A start forgets: the handler may be mended.
const (
	poisonTries = 3
	poisonBound = 1024 // stanzas that are counted, and that are set aside
	reasonBound = 1024 // bytes
)

// Poison is a stanza that has made handlers panic.
type Poison struct {
	Raw     []byte
	Sender  jid.JID // bare, or a component's; zero: unknown
	Account jid.JID // with Pending: whose row it is, bare
	Pending int64   // the archive row that is delivered again and again; 0: none
	Reason  string  // what the handler panicked with, and where
	Tries   int
	Kept    bool // a Poisoned hook has it in a safe place
}

// key is what two deliveries of the same stanza have in common.
type poisonKey struct {
	whose jid.JID
	row   int64
	sum   uint64 // of the bytes, when there is no row
}

// poison counts. The zero value is ready.
type poison struct {
	seed  maphash.Seed
	once  sync.Once
	n     atomic.Int64 // of aside: nearly always 0, and nothing is looked up
	mu    sync.Mutex
	tries map[poisonKey]int
	order []poisonKey // of tries, the oldest first
	aside map[poisonKey]struct{}
}

func (p *poison) key(x *Poison) poisonKey {
	if x.Pending != 0 {
		return poisonKey{whose: x.Account, row: x.Pending}
	}
	p.once.Do(func() { p.seed = maphash.MakeSeed() })
	return poisonKey{whose: x.Sender.Bare(), sum: maphash.Bytes(p.seed, x.Raw)}
}

// isAside reports whether the stanza was set aside.
func (p *poison) isAside(x *Poison) bool {
	if p.n.Load() == 0 {
		return false
	}
	k := p.key(x)
	p.mu.Lock()
	defer p.mu.Unlock()
	_, aside := p.aside[k]
	return aside
}

// count returns how often the stanza has made a handler panic, this time
// included.
func (p *poison) count(x *Poison) int {
	k := p.key(x)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.tries == nil {
		p.tries = map[poisonKey]int{}
	}
	if _, known := p.tries[k]; !known {
		if len(p.order) >= poisonBound {
			delete(p.tries, p.order[0])
			p.order = p.order[1:]
		}
		p.order = append(p.order, k)
	}
	p.tries[k]++
	return p.tries[k]
}

// put sets aside; when there is no room for another it goes on being counted.
func (p *poison) put(x *Poison) {
	k := p.key(x)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.aside == nil {
		p.aside = map[poisonKey]struct{}{}
	}
	if len(p.aside) < poisonBound {
		p.aside[k] = struct{}{}
		p.n.Store(int64(len(p.aside)))
	}
}

// errPanic wraps what a handler panicked with.
var errPanic = errors.New("panic")

// protect runs what others have written; a panic becomes an error.
func (s *Server) protect(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = s.panicked(p)
		}
	}()
	return do()
}

// panicked is called by the deferred function that has recovered p.
func (s *Server) panicked(p any) error {
	s.metrics.panics.Inc()
	s.log.Error("handler panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	return fmt.Errorf("%w: %v at %s", errPanic, p, culprit())
}

// culprit is the function that panicked: the first below the runtime's.
func culprit() string {
	var pcs [32]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(0, pcs[:])])
	for below := false; ; {
		f, more := frames.Next()
		ofRuntime := strings.HasPrefix(f.Function, "runtime.")
		switch {
		case f.Function == "runtime.gopanic":
			below = true
		case below && !ofRuntime:
			return fmt.Sprintf("%s:%d", f.Function, f.Line)
		}
		if !more {
			return "?"
		}
	}
}

// poisonOf describes the stanza of a flow, as it came.
func poisonOf(f *Flow) *Poison {
	return &Poison{Raw: f.work.cause.Raw, Sender: f.From.Bare(), Account: f.Account, Pending: f.row}
}

// struck counts a panic, and sets the stanza aside when that was one too many:
// true: it is aside now.
func (s *Server) struck(ctx context.Context, t *table, x *Poison, why error) bool {
	if x.Tries = s.poison.count(x); x.Tries < poisonTries {
		return false
	}
	x.Reason = why.Error()
	if len(x.Reason) > reasonBound {
		x.Reason = strings.ToValidUTF8(x.Reason[:reasonBound], "")
	}
	err := s.protect(func() error {
		_, err := fire(ctx, t, Poisoned, x)
		return err
	})
	if err != nil { // it is counted on
		s.log.Error("stanza not set aside", "from", x.Sender.String(), "pending", x.Pending, "err", err)
		return false
	}
	s.poison.put(x)
	s.log.Warn("poison stanza set aside", "from", x.Sender.String(), "account", x.Account.String(), "pending", x.Pending, "tries", x.Tries, "kept", x.Kept, "reason", x.Reason)
	return true
}

// Guard runs do for a stanza that no flow carries, such as a pending one on its
// way out. A panic is counted against the stanza; one that was set aside is
// left alone. It reports whether do has run to its end.
func (r *Registrar) Guard(ctx context.Context, x *Poison, do func()) bool {
	s := r.server
	if s.poison.isAside(x) {
		return false
	}
	err := s.protect(func() error { do(); return nil })
	if err == nil {
		return true
	}
	t := s.acquire()
	defer t.Leave()
	s.struck(ctx, t, x, err)
	return false
}

// poisoned takes what a later stage has panicked at. Who sent it is told, but
// not of a row that will be delivered again.
func (r *run) poisoned(ctx context.Context, e *channel.Envelope) {
	if e.Stanza == nil || e.Hops >= channel.MaxHops {
		return
	}
	x := &Poison{Raw: e.Raw, Sender: e.Stanza.From.Bare(), Account: e.Stanza.To.Bare(), Pending: e.Pending}
	r.server.metrics.panics.Inc()
	if r.server.struck(ctx, r.table, x, fmt.Errorf("%w: %s", errPanic, e.Reason)) || x.Pending == 0 {
		w := r.begin(e.Stanza)
		w.out = append(w.out, w.answer(e.Stanza, stanza.NewError(stanza.InternalServerError, ""))...)
	}
}
