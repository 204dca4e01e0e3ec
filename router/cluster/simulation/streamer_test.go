package simulation

import (
	"context"
	"slices"
	"strconv"
	"sync"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/router/channel"
	"parley/router/sessions"
)

// streamer is what stream promises, in short: a session's stanzas enter the house
// in order, one batch at a time; a session whose address goes elsewhere ends when
// everything its client has sent is done; what it had not taken is given back.
type streamer struct {
	process *process
	parser  channel.MessageChannel
	readers sync.WaitGroup

	mu     sync.Mutex
	last   uint64
	all    map[uint64]*session
	parted []*session // their clients may not have heard of it yet
}

// session is one stream of a client.
type session struct {
	streamer *streamer
	device   *device
	ref      sessions.Ref
	wire     wire // to and from the client

	mu       sync.Mutex
	change   sync.Cond
	queue    []*channel.Envelope // that the client has sent; nil: it has hung up
	received uint64
	durable  uint64
	bound    bool
	closing  bool // nothing more is read
	ended    bool
	idle     bool
	owed     []handed // that the client has not acknowledged
}

type handed struct {
	row int64
	raw []byte
}

// retireWithin is how long a session that goes elsewhere waits for what its
// client has sent.
const retireWithin = 10 * time.Second

// connect begins a session; nil: the process takes nobody.
func (s *streamer) connect(d *device, at jid.JID) *session {
	s.process.mu.Lock()
	open := s.process.open && !s.process.dead
	s.process.mu.Unlock()
	if !open {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = max(s.last+1, uint64(s.process.clock.Now().UnixMicro())) //nolint:gosec // times are after 1970
	x := &session{streamer: s, device: d, ref: sessions.Ref{Node: s.process.name, Conn: s.last, JID: at}}
	x.change.L = &x.mu
	x.wire = wire{process: s.process, dice: s.process.w.dice("wire" + s.process.String() + at.String() + strconv.FormatUint(s.last, 10))}
	s.all[s.last] = x
	if s.process.over() { // hangUp has not seen it
		return nil
	}
	s.readers.Go(x.read)
	return x
}

func (s *streamer) find(ref sessions.Ref) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	if x := s.all[ref.Conn]; x != nil && x.ref == ref {
		return x
	}
	return nil
}

func (s *streamer) sessions() (all []*session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, x := range s.all {
		all = append(all, x)
	}
	slices.SortFunc(all, func(a, b *session) int { return int(a.ref.Conn) - int(b.ref.Conn) }) //nolint:gosec // order alone
	return all
}

// send puts something on the road.
func (s *streamer) send(batch ...*channel.Envelope) {
	if s.process.awake() {
		_ = s.parser.Send(s.process.ctx, batch)
	}
}

// put is the client's: an element, or the wish to be bound.
func (x *session) put(e *channel.Envelope) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closing {
		return
	}
	e.Session = x.ref
	x.queue = append(x.queue, e)
	x.change.Signal()
}

// read is the session's reader: what has gathered is a batch.
func (x *session) read() {
	for {
		x.mu.Lock()
		x.idle = true
		x.change.Broadcast()
		for len(x.queue) == 0 && !x.closing {
			x.change.Wait()
		}
		x.idle = false
		if x.closing {
			x.idle, x.queue = true, nil
			x.change.Broadcast()
			x.mu.Unlock()
			return
		}
		x.mu.Unlock()
		if !x.streamer.process.awake() {
			return
		}
		x.mu.Lock()
		batch := x.queue
		x.queue = nil
		for _, e := range batch {
			if e.Kind == channel.Stanza {
				x.received++
				e.Seq = x.received
			}
		}
		x.mu.Unlock()
		x.streamer.send(batch...)
	}
}

// deliver is the channel.Handler of the way back.
func (s *streamer) deliver(_ context.Context, batch []*channel.Envelope) error {
	for _, e := range batch {
		switch e.Kind {
		case channel.Deliver:
			s.hand(e)
		case channel.Handled:
			if x := s.find(e.Session); x != nil {
				x.handled(e)
			}
		case channel.Close:
			for _, ref := range e.To {
				if x := s.find(ref); x != nil {
					s.readers.Go(func() { x.retire(e.Reason) })
				}
			}
		}
	}
	return nil
}

func (s *streamer) hand(e *channel.Envelope) {
	for _, ref := range e.To {
		raw := e.Rendered(nil, ref.JID)
		if x := s.find(ref); x != nil && x.take(e, raw) {
			continue
		}
		if e.Class == channel.Urgent && (!e.Solicited || e.Pending != 0) {
			back := &channel.Envelope{Kind: channel.Undelivered, Session: ref, Raw: raw, Pending: e.Pending, Hops: e.Hops}
			s.readers.Go(func() { s.send(back) })
		}
	}
}

func (x *session) take(e *channel.Envelope, raw []byte) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ended {
		return false
	}
	if e.Pending != 0 {
		x.owed = append(x.owed, handed{e.Pending, raw})
	}
	x.wire.down.pass(&x.wire, func() { x.device.got(x, raw, e.Pending) })
	return true
}

func (x *session) handled(e *channel.Envelope) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.bound {
		x.bound = e.Reason == ""
		why := e.Reason
		x.wire.down.pass(&x.wire, func() { x.device.answered(x, why) })
		return
	}
	if e.Seq > x.durable {
		x.durable = e.Seq
		x.wire.down.pass(&x.wire, func() { x.device.acked(x, e.Seq) })
		x.change.Broadcast()
	}
}

// acked is the client's: it has these rows.
func (x *session) acked(row int64) {
	x.mu.Lock()
	x.owed = slices.DeleteFunc(x.owed, func(h handed) bool { return h.row == row })
	ended := x.ended
	x.mu.Unlock()
	if !ended {
		x.put(&channel.Envelope{Kind: channel.Acked, Rows: []int64{row}})
	}
}

// retire ends the session when everything that its client has sent is done.
func (x *session) retire(why string) {
	x.mu.Lock()
	was := x.closing
	x.closing = true
	x.change.Broadcast()
	x.mu.Unlock()
	if was {
		return
	}
	x.wire.down.pass(&x.wire, func() { x.device.lost(x, why) })
	late := false
	limit := time.AfterFunc(retireWithin, func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		late = true
		x.change.Broadcast()
	})
	defer limit.Stop()
	x.mu.Lock()
	for (!x.idle || x.durable < x.received) && !(late && x.bound) && !x.streamer.process.over() {
		x.change.Wait()
	}
	x.mu.Unlock()
	x.end()
}

// end takes the session out of the house.
func (x *session) end() {
	x.mu.Lock()
	x.ended = true
	owed := x.owed
	batch := []*channel.Envelope{{Kind: channel.Unbind, Session: x.ref, Seq: x.received}}
	x.mu.Unlock()
	s := x.streamer
	s.mu.Lock()
	delete(s.all, x.ref.Conn)
	s.parted = append(s.parted, x)
	s.mu.Unlock()
	for _, h := range owed {
		batch = append(batch, &channel.Envelope{Kind: channel.Undelivered, Session: x.ref, Raw: h.raw, Pending: h.row})
	}
	s.send(batch...)
}

// shut ends all sessions in order.
func (s *streamer) shut() {
	var all sync.WaitGroup
	for _, x := range s.sessions() {
		all.Go(func() { x.retire(string(stanza.StreamSystemShutdown)) })
	}
	all.Wait()
}

// hangUp is what clients see of a process that has died.
func (s *streamer) hangUp() {
	for _, x := range s.sessions() {
		x.mu.Lock()
		x.closing = true
		x.change.Broadcast()
		x.mu.Unlock()
		x.device.lost(x, "connection lost")
	}
	s.mu.Lock()
	parted := s.parted
	s.mu.Unlock()
	for _, x := range parted { // their farewells do not come through any more
		x.device.lost(x, "connection lost")
	}
}

// wire is a client's connection: what goes in at one end comes out at the other,
// in order, later, and not while the process is frozen.
type wire struct {
	process  *process
	mu       sync.Mutex
	dice     dice
	up, down lane
}

type lane struct {
	queue []func()
	busy  bool
}

// pass lets f be called at the other end.
func (l *lane) pass(w *wire, f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	l.queue = append(l.queue, f)
	if !l.busy {
		l.busy = true
		w.process.w.after(w.latency(), func() { l.run(w) })
	}
}

func (w *wire) latency() time.Duration {
	return 300*time.Microsecond + time.Duration(w.dice.Int64N(int64(5*time.Millisecond)))
}

func (l *lane) run(w *wire) {
	for w.process.awake() {
		w.mu.Lock()
		if len(l.queue) == 0 {
			l.busy = false
			w.mu.Unlock()
			return
		}
		f := l.queue[0]
		l.queue = l.queue[1:]
		w.mu.Unlock()
		f()
	}
}
