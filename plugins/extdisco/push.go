package extdisco

import (
	"context"
	"crypto/rand"
	"slices"
	"sync"
	"time"

	"parley/parser/stanza"
	"parley/router/sessions"
)

// types of which a session has asked, as a set; everything is one more.
type kinds uint8

func (t Type) kind() kinds {
	if t == "" {
		return 1 << len(types)
	}
	return 1 << t.index()
}

// asked remembers the sessions of this node that have asked for services: nobody
// else hears of changes (XEP-0215 §3.2). It is as large as the sessions are many.
type asked struct {
	mu   sync.Mutex // leaf
	kind map[sessions.Ref]kinds
}

func (a *asked) add(ref sessions.Ref, t Type) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.kind == nil {
		a.kind = map[sessions.Ref]kinds{}
	}
	a.kind[ref] |= t.kind()
}

func (a *asked) forget(ref sessions.Ref) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.kind, ref)
}

func (a *asked) all() []sessions.Ref {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]sessions.Ref, 0, len(a.kind))
	for ref := range a.kind {
		out = append(out, ref)
	}
	return out
}

func (a *asked) of(ref sessions.Ref) kinds {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.kind[ref]
}

// change is what became of one service; its action is that of XEP-0215 §2.
type change struct {
	action string
	at     key
	now    *Service // nil: it is no more
}

// compare says what has changed between two configurations.
func compare(was, is *Config) []change {
	var out []change
	old := was.list()
	for _, s := range is.list() {
		i := slices.IndexFunc(old, func(o *Service) bool { return o.key() == s.key() })
		switch {
		case i < 0:
			out = append(out, change{"add", s.key(), s})
		case *old[i] != *s:
			out = append(out, change{"modify", s.key(), s})
		}
	}
	for _, o := range old {
		if !slices.ContainsFunc(is.list(), func(s *Service) bool { return o.key() == s.key() }) {
			out = append(out, change{"remove", o.key(), nil})
		}
	}
	return out
}

// A push reaches so many sessions, then rests: a server with many must do
// something else meanwhile.
const (
	pushAtOnce = 500
	pushRest   = 100 * time.Millisecond
)

// pusher has at most one push under way; what changes meanwhile is the next one's.
type pusher struct {
	mu      sync.Mutex // guards the rest
	waiting [][]change
	running bool
	ended   bool
	wake    chan struct{} // closed by stop
	done    sync.WaitGroup
}

// maxWaiting is how many changed configurations may wait to be pushed; what comes
// on top is not: clients ask again when their credentials end.
const maxWaiting = 16

func (d *directory) tell(changes []change) {
	p := &d.push
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended || len(p.waiting) >= maxWaiting {
		return
	}
	p.waiting = append(p.waiting, changes)
	if p.running {
		return
	}
	if p.wake == nil {
		p.wake = make(chan struct{})
	}
	p.running = true
	p.done.Go(func() { d.pushAll(p.wake) })
}

func (p *pusher) next() []change {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended || len(p.waiting) == 0 {
		p.running = false
		return nil
	}
	c := p.waiting[0]
	p.waiting = p.waiting[1:]
	return c
}

func (p *pusher) stop() {
	p.mu.Lock()
	if !p.ended && p.wake != nil {
		close(p.wake)
	}
	p.ended = true
	p.mu.Unlock()
	p.done.Wait()
}

// pushAll tells every session that has asked, until nothing is left to tell.
func (d *directory) pushAll(stopped <-chan struct{}) {
	for changes := d.push.next(); changes != nil; changes = d.push.next() {
		for batch := range slices.Chunk(d.asked.all(), pushAtOnce) {
			d.pushTo(batch, changes)
			if len(batch) == pushAtOnce && !d.rest(stopped) {
				return
			}
		}
	}
}

// rest waits a moment; false: the component is to stop.
func (d *directory) rest(stopped <-chan struct{}) bool {
	over := make(chan struct{})
	stop := d.env.Clock.AfterFunc(pushRest, func() { close(over) })
	defer stop()
	select {
	case <-over:
		return true
	case <-stopped:
		return false
	}
}

// pushTo is XEP-0215 §3.2: each session gets what it has asked for.
func (d *directory) pushTo(to []sessions.Ref, changes []change) {
	cfg := d.cfg.Load()
	var out []*stanza.Stanza
	for _, ref := range to {
		if e, ok := d.env.Sessions.Find(ref.JID); !ok || e.Ref != ref { // it has gone on elsewhere
			d.asked.forget(ref)
			continue
		}
		if list := d.news(cfg, ref, changes); list != nil {
			out = append(out, stanza.Make(stanza.IQ, "set", ref.JID.Host(), ref.JID, rand.Text(), list))
		}
	}
	d.reg.Emit(context.Background(), out...)
}

// news is <services/> for one session; nil: nothing of it concerns it.
func (d *directory) news(cfg *Config, ref sessions.Ref, changes []change) *stanza.Element {
	wants := d.asked.of(ref)
	all := wants&Type("").kind() != 0
	out := stanza.El(NS, "services")
	for _, c := range changes {
		switch {
		case !all && wants&c.at.typ.kind() == 0:
		case c.now == nil:
			out.Add(c.at.element().With("action", c.action))
		default:
			out.Add(c.now.element(d.grant(cfg, c.now, ref.JID)).With("action", c.action))
		}
	}
	if out.Count() == 0 {
		return nil
	}
	return out
}
