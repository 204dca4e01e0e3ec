package register

import (
	"container/list"
	"sync"
	"time"

	"parley/plugins"
)

// MaxStreams bounds of how many streams a PerStream has something: one more makes it
// forget the oldest.
const MaxStreams = 4096

// PerStream remembers one thing of each stream that wants an account, for a while. It is
// safe for concurrent use.
type PerStream[V any] struct {
	clock plugins.Clock
	ttl   time.Duration

	mu    sync.Mutex // leaf
	known map[string]*list.Element
	order list.List // of kept[V], the oldest first
}

type kept[V any] struct {
	stream string
	until  time.Time
	value  V
}

// NewPerStream remembers for ttl.
func NewPerStream[V any](clock plugins.Clock, ttl time.Duration) *PerStream[V] {
	return &PerStream[V]{clock: clock, ttl: ttl, known: map[string]*list.Element{}}
}

// Put remembers v in the place of what there was.
func (p *PerStream[V]) Put(stream string, v V) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(p.known[stream])
	p.put(stream, v)
}

// PutNew is Put unless there is something.
func (p *PerStream[V]) PutNew(stream string, v V) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known[stream] == nil {
		p.put(stream, v)
	}
}

func (p *PerStream[V]) put(stream string, v V) {
	now := p.clock.Now()
	for e := p.order.Front(); e != nil && (p.order.Len() >= MaxStreams || now.After(e.Value.(kept[V]).until)); e = p.order.Front() {
		p.drop(e)
	}
	p.known[stream] = p.order.PushBack(kept[V]{stream, now.Add(p.ttl), v})
}

func (p *PerStream[V]) drop(e *list.Element) {
	if e != nil {
		delete(p.known, p.order.Remove(e).(kept[V]).stream)
	}
}

// Look lets f, which must not use p, see what is remembered and say whether it is to stay.
// It reports whether there was something.
func (p *PerStream[V]) Look(stream string, f func(V) (stays bool)) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	e := p.known[stream]
	if e == nil {
		return false
	}
	k := e.Value.(kept[V])
	late := p.clock.Now().After(k.until)
	if late || !f(k.value) {
		p.drop(e)
	}
	return !late
}

// Drop forgets what is remembered of a stream.
func (p *PerStream[V]) Drop(stream string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop(p.known[stream])
}

// Len is of how many streams something is remembered.
func (p *PerStream[V]) Len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.known)
}
