package captcha

import (
	"container/list"
	"crypto/rand"
	"sync"
	"time"

	"parley/plugins"
	"parley/plugins/register"
)

// maxOpen bounds the challenges that are open; one more ends the oldest.
const maxOpen = 4096

// open are the challenges that wait for their answers, one of a stream.
type open struct {
	clock plugins.Clock
	ttl   time.Duration

	mu    sync.Mutex // leaf
	known map[string]*list.Element
	order *list.List // of *challenge, the oldest first
}

type challenge struct {
	stream, domain string
	id             string // 130 bits
	question       question
	passed         bool
	until          time.Time
}

func newOpen(clock plugins.Clock, ttl time.Duration) *open {
	return &open{clock: clock, ttl: ttl, known: map[string]*list.Element{}, order: list.New()}
}

// add opens a challenge of a stream in the place of the one before.
func (o *open) add(a register.Applicant, q question) (id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drop(o.known[a.Stream])
	now := o.clock.Now()
	for e := o.order.Front(); e != nil && (o.order.Len() >= maxOpen || now.After(e.Value.(*challenge).until)); e = o.order.Front() {
		o.drop(e)
	}
	id = rand.Text()
	o.known[a.Stream] = o.order.PushBack(&challenge{stream: a.Stream, domain: a.Domain, id: id, question: q, until: now.Add(o.ttl)})
	return id
}

func (o *open) drop(e *list.Element) {
	if e != nil {
		delete(o.known, o.order.Remove(e).(*challenge).stream)
	}
}

// take returns the challenge of a stream with that id. One that was not passed is over:
// it is answered once.
func (o *open) take(a register.Applicant, id string) (q question, passed, ok bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	e := o.known[a.Stream]
	if e == nil {
		return q, false, false
	}
	c := e.Value.(*challenge)
	switch {
	case o.clock.Now().After(c.until):
		o.drop(e)
		return q, false, false
	case c.id != id || c.domain != a.Domain:
		return q, false, false
	case !c.passed:
		o.drop(e)
	}
	return c.question, c.passed, true
}

// pass notes that a challenge which was taken was answered well: from now on as long
// again.
func (o *open) pass(a register.Applicant, id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.known[a.Stream] != nil { // another form was asked for meanwhile
		return
	}
	o.known[a.Stream] = o.order.PushBack(&challenge{stream: a.Stream, domain: a.Domain, id: id, passed: true, until: o.clock.Now().Add(o.ttl)})
}

// forget ends the challenge of a stream.
func (o *open) forget(a register.Applicant) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.drop(o.known[a.Stream])
}
