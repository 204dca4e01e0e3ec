package nats

import (
	"errors"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
)

const (
	// turn is how many frames of one pipe are published before it is another's turn.
	turn = 64
	// resolution of what the clock does.
	resolution = 50 * time.Millisecond
)

// publisher is the only one that writes to the network, on a goroutine of its own:
// so Send never waits for a socket or for a client that dials, a pipe's frames leave
// in order without a lock around the network, and while it writes, what comes
// meanwhile gathers, acknowledgements of one pipe into one.
type publisher struct {
	b    *Bus
	wake chan struct{}
	buf  []byte   // for acknowledgements
	turn [][]byte // for frames

	mu        sync.Mutex
	senders   []*sender   // that have something; each at most once
	receivers []*receiver // likewise
}

func newPublisher(b *Bus) *publisher {
	return &publisher{b: b, wake: make(chan struct{}, 1), turn: make([][]byte, 0, turn)}
}

// send is told about a sender that has work; see sender.publish.
func (p *publisher) send(s *sender) {
	p.mu.Lock()
	p.senders = append(p.senders, s)
	p.mu.Unlock()
	p.come()
}

// answer is told about a receiver that has something to say; see receiver.say.
func (p *publisher) answer(r *receiver) {
	p.mu.Lock()
	p.receivers = append(p.receivers, r)
	p.mu.Unlock()
	p.come()
}

func (p *publisher) come() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

func (p *publisher) run() {
	for {
		select {
		case <-p.wake:
			p.drain()
		case <-p.b.quit:
			p.drain()
			return
		}
	}
}

// drain publishes until nobody has anything. Acknowledgements go first: they make
// room elsewhere.
func (p *publisher) drain() {
	var senders []*sender
	var receivers []*receiver
	for {
		p.mu.Lock()
		senders, p.senders = p.senders, senders[:0]
		receivers, p.receivers = p.receivers, receivers[:0]
		p.mu.Unlock()
		if len(senders)+len(receivers) == 0 {
			return
		}
		for _, r := range receivers {
			f := r.report()
			p.buf = f.append(p.buf[:0])
			p.publish(r.back, p.buf)
		}
		for _, s := range senders {
			frames, all := s.take(p.turn)
			for _, f := range frames {
				p.publish(s.subject, f)
			}
			clear(frames)
			if !all {
				p.send(s)
			}
		}
		clear(senders)
		clear(receivers)
	}
}

// publish hands a frame to the client, which copies it. What fails is lost, like
// anything else that NATS loses.
func (p *publisher) publish(subject string, f []byte) {
	err := p.b.nc.Publish(subject, f)
	switch {
	case err == nil, errors.Is(err, natsgo.ErrReconnectBufExceeded), errors.Is(err, natsgo.ErrConnectionClosed):
	case errors.Is(err, natsgo.ErrMaxPayload): // another server than when it was accepted
		p.b.strange.Do(func() { p.b.log.Error("nats: frame too large for this server", "subject", subject, "size", len(f)) })
	default: // part of it may be on the wire
		p.b.oddities.Do(func() { p.b.log.Warn("nats: write failed", "err", err) })
		if err := p.b.nc.ForceReconnect(); err != nil {
			p.b.oddities.Do(func() { p.b.log.Warn("nats: no new connection", "err", err) })
		}
	}
}

// clock looks after questions that are due and pipes that do not move. It is no
// injected one: how long a network takes is not ours to say, and nothing that is
// stored or sent depends on it. It touches neither the network nor the publisher's
// goroutine, so that a stuck client cannot keep anybody waiting.
func (b *Bus) clock() {
	t := time.NewTicker(resolution)
	defer t.Stop()
	var all []*sender
	for {
		select {
		case now := <-t.C:
			all = b.senders(all[:0])
			for _, s := range all {
				s.tick(now)
			}
			clear(all)
		case <-b.quit:
			return
		}
	}
}
