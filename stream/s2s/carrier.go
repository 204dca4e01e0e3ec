package s2s

import (
	"strconv"
	"sync"
	"time"

	"parley/parser/stanza"
	"parley/stream"
)

// Bounds of a stream that takes our stanzas.
const (
	outbox = 1 << 20 // bytes that its socket has not taken
	// ackWithin is how long the other side has to acknowledge what it is asked about.
	ackWithin = time.Minute
)

// carrier is a stream that takes our stanzas: one to another server, or one of
// another server that goes both ways (XEP-0288), on which several routes may be.
// What a route has written is its own again when the stream ends without an
// acknowledgement (XEP-0198). Lock order: outbound.mu, route.mu, carrier.mu or incoming.mu.
type carrier struct {
	queue *Queue // what may be under way
	conn  *stream.Conn

	mu      sync.Mutex
	over    bool                // nobody may come any more
	riders  map[*route]struct{} // bounded by the pairs that the stream has proven
	managed bool                // it acknowledges
	unacked []sent              // written, in order
	bytes   int                 // of unacked
	acked   uint32
	asked   time.Time // zero: no question is open
}

// sent is a stanza that was written, and whose.
type sent struct {
	item
	by *route
}

// join lets a route write; false: the stream has ended. r.mu is held.
func (c *carrier) join(r *route) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return false
	}
	if c.riders == nil {
		c.riders = map[*route]struct{}{}
	}
	c.riders[r] = struct{}{}
	return true
}

// leave ends join, unless something of the route is not acknowledged. r.mu is held.
func (c *carrier) leave(r *route) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.unacked {
		if s.by == r {
			return false
		}
	}
	delete(c.riders, r)
	return true
}

// shared reports whether there are other routes on it.
func (c *carrier) shared() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.riders) > 1
}

// write puts a stanza on the way; false: there is no room now, or the stream is
// closed. r.mu is held.
func (c *carrier) write(r *route, it item) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over || !c.room(len(it.raw)) || !c.conn.SendRaw(it.raw) {
		return false
	}
	if c.managed {
		c.unacked = append(c.unacked, sent{it, r})
		c.bytes += len(it.raw)
	}
	return true
}

// room reports whether n more bytes may be written; c.mu is held.
func (c *carrier) room(n int) bool {
	if waiting := c.conn.Transport().Pending(); waiting > 0 && waiting+n > outbox {
		return false
	}
	return !c.managed || len(c.unacked) == 0 || len(c.unacked) < c.queue.Stanzas && c.bytes+n <= int(c.queue.Bytes)
}

// request asks how much has arrived.
func (c *carrier) request(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.managed && c.asked.IsZero() && len(c.unacked) > 0 {
		c.asked = now
		c.conn.SendRaw([]byte("<r xmlns='" + stanza.NSSM + "'/>"))
	}
}

// manage makes what is written from now on count, if start says that the other side
// counts it as well.
func (c *carrier) manage(start func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.managed = start() || c.managed
}

// acknowledges reports whether the other side does.
func (c *carrier) acknowledges() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.managed
}

// acknowledged is XEP-0198 §4.
func (c *carrier) acknowledged(el *stanza.Element, now time.Time) error {
	h, err := strconv.ParseUint(el.Get("h"), 10, 32)
	if err != nil {
		return &stanza.StreamError{Condition: stanza.StreamBadFormat, Text: "h is not a number"}
	}
	c.mu.Lock()
	n := int(uint32(h) - c.acked)
	if !c.managed || n > len(c.unacked) {
		c.mu.Unlock()
		return &stanza.StreamError{Condition: stanza.StreamUndefinedCondition, App: stanza.El(stanza.NSSM, "handled-count-too-high")}
	}
	for _, s := range c.unacked[:n] {
		c.bytes -= len(s.raw)
	}
	clear(c.unacked[:n])
	c.unacked = c.unacked[n:]
	c.acked, c.asked = uint32(h), time.Time{}
	c.mu.Unlock()
	c.pump(now)
	c.request(now)
	return nil
}

// pump lets its routes write what waits: there may be room again.
func (c *carrier) pump(now time.Time) {
	for _, r := range c.list() {
		r.mu.Lock()
		if r.on == c {
			r.pump(now)
		}
		r.mu.Unlock()
	}
}

func (c *carrier) list() []*route {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*route, 0, len(c.riders))
	for r := range c.riders {
		all = append(all, r)
	}
	return all
}

// late reports whether what was asked is not answered in time.
func (c *carrier) late(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.asked.IsZero() && now.Sub(c.asked) > ackWithin
}

// ended gives back what is not delivered for sure; err is why, when it was no
// farewell.
func (c *carrier) ended(err error) {
	c.mu.Lock()
	c.over = true
	back := make(map[*route][]item, len(c.riders))
	for r := range c.riders { // those that have nothing under way hear of it too
		back[r] = nil
	}
	for _, s := range c.unacked {
		back[s.by] = append(back[s.by], s.item)
	}
	c.unacked, c.bytes, c.riders = nil, 0, nil
	c.mu.Unlock()
	for r, items := range back {
		r.lost(c, items, err)
	}
}
