package nats

import (
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
)

// receiver is the far end of a pipe. Payload n waits at ring[n%len(ring)] from the
// time it has arrived in its turn until its handler is called:
//
//	handled ≤ received
type receiver struct {
	b     *Bus
	from  Peer
	port  string
	h     Handler
	back  string          // subject of acknowledgements
	after <-chan struct{} // closed when the node's life before is out of its handler; nil: at once
	over  chan struct{}   // closed when work has returned

	mu       sync.Mutex
	change   sync.Cond // what work waits for
	ring     [][]byte
	handled  uint64
	received uint64
	bytes    int // of payloads after handled
	refused  []uint64
	question uint64 // to be answered; 0: none
	asked    uint64 // what the question says was sent before it
	ended    bool

	queued bool // the publisher knows that there is something to say
}

func newReceiver(b *Bus, from Peer, port string, h Handler) *receiver {
	r := &receiver{
		b: b, from: from, port: port, h: h, back: subject(b.o.Cluster, from.Node, b.o.Self.Node, ackPort),
		over: make(chan struct{}), ring: make([][]byte, b.o.Window.Frames),
	}
	r.change.L = &r.mu
	return r
}

// take takes a frame from the network. It never waits for the handler: the next
// frame may be for another pipe.
func (r *receiver) take(f *frame) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch n := r.received - r.handled; {
	case r.ended:
	case f.kind == kindAsk:
		r.question, r.asked = f.question, f.seq
		r.say()
	case f.seq <= r.received: // its acknowledgement may be lost
		r.say()
	case f.seq > r.received+1: // one before it is lost
	case n > 0 && (n >= uint64(len(r.ring)) || r.bytes+len(f.payload) > r.b.o.Window.Bytes):
	default:
		r.received++
		r.ring[r.received%uint64(len(r.ring))] = f.payload
		r.bytes += len(f.payload)
		r.change.Signal()
	}
}

// say makes the publisher come for an acknowledgement, with mu.
func (r *receiver) say() {
	if !r.queued {
		r.queued = true
		r.b.out.answer(r)
	}
}

// acknowledge says again what is handled.
func (r *receiver) acknowledge() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ended {
		r.say()
	}
}

// report returns what the far end has to say now.
func (r *receiver) report() frame {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := frame{
		kind: kindAck, node: []byte(r.b.o.Self.Node), life: r.b.o.Self.Incarnation, to: r.from.Incarnation,
		port: []byte(r.port), handled: r.handled, received: r.received, question: r.question, seq: r.asked,
		refused: slices.Clone(r.refused),
	}
	r.question, r.asked, r.queued = 0, 0, false
	return f
}

// end drops what waits for its handler.
func (r *receiver) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	r.change.Signal()
}

// work calls the handler.
func (r *receiver) work() {
	defer close(r.over)
	if r.after != nil {
		<-r.after
		r.after = nil // and with it what was before
	}
	for {
		payload, ok := r.next()
		if !ok {
			return
		}
		err := r.b.guard("handler", r.from, r.port, func() error { return r.h(r.b.ctx, r.from, payload) })
		r.mu.Lock()
		r.handled++
		if r.forget(); errors.Is(err, ErrRefused) {
			r.refused = append(r.refused, r.handled)
		}
		r.bytes -= len(payload)
		r.say()
		r.mu.Unlock()
	}
}

// forget drops the refusals that the near end has heard of; with mu.
func (r *receiver) forget() {
	known := 0
	for known < len(r.refused) && r.refused[known]+maxWindow <= r.handled {
		known++
	}
	r.refused = slices.Delete(r.refused, 0, known)
}

// next waits for the payload that is to be handled; false when the pipe has ended.
func (r *receiver) next() (payload []byte, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.handled == r.received && !r.ended {
		r.change.Wait()
	}
	if r.ended {
		r.ring = nil
		return nil, false
	}
	p := &r.ring[(r.handled+1)%uint64(len(r.ring))]
	payload, *p = *p, nil
	return payload, true
}

// guard calls what the other packages gave us. A panic there must not take the
// node along, nor keep a pipe from going on.
func (b *Bus) guard(what string, peer Peer, port string, f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			b.log.Error("nats: "+what+" panicked", "peer", peer.Node, "port", port, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		}
	}()
	if err = f(); err != nil {
		b.log.Error("nats: "+what+" failed", "peer", peer.Node, "port", port, "err", err)
	}
	return err
}
