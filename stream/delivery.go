package stream

import (
	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/router/channel"
)

// delivery is one stanza on its way to the client.
type delivery struct {
	raw       []byte // rendered, but for to; shared with others who get the same; nil: only the row is remembered (see management.push)
	to        string // the attribute that is to be put into raw; empty: raw is complete
	row       int64  // the archive row that an acknowledgement frees; 0: none
	refused   uint64 // it is the error of what the client sent at this place; 0: it is none
	stamp     int64  // when it was handed over, unix microseconds
	class     channel.Class
	hops      uint8
	solicited bool          // the client asked for it
	from      jid.JID       // whose presence it is; zero when unknown
	link      *channel.Link // its place in a chain; nil: it has none
}

// deliveryOf takes over what a streamer needs of an envelope; now is in unix microseconds.
func deliveryOf(e *channel.Envelope, now int64) delivery {
	d := delivery{raw: e.Shared(), row: e.Pending, class: e.Class, hops: e.Hops, solicited: e.Solicited, stamp: e.Stamp, link: e.Link}
	if d.stamp == 0 {
		d.stamp = now
	}
	if e.Seq != 0 && len(e.To) == 1 && e.To[0] == e.Session {
		d.refused = e.Seq
	}
	if e.Stanza != nil {
		d.from = e.Stanza.From
	}
	return d
}

// bytes is how long the delivery is on the wire.
func (d *delivery) bytes() int { return len(d.raw) + len(d.to) }

// whole is all of it.
func (d *delivery) whole() []byte {
	if d.to == "" {
		return d.raw
	}
	return spliced(make([]byte, 0, d.bytes()), d.raw, stanza.NameEnd(d.raw), d.to)
}

// spliced appends p with attr at a place in it.
func spliced(dst, p []byte, at int, attr string) []byte {
	return append(append(append(dst, p[:at]...), attr...), p[at:]...)
}

// own is the attribute with the session's address; s.mu is held.
func (s *Session) own(splice channel.Splice) string {
	if splice == channel.Nobody {
		return ""
	}
	if s.spliced != splice {
		s.spliced, s.toAttr = splice, string(stanza.AppendTo(nil, splice.Of(s.ref.JID)))
	}
	return s.toAttr
}

// touched are the sessions that a batch has queued something for.
type touched struct {
	batch uint64
	list  []*Session
	last  bool  // what comes now is for many, and most of them get nothing else
	at    int64 // when it is handed over; 0: nobody has asked yet
}

// now is when the batch is handed over, unix microseconds.
func (t *touched) now(c plugins.Clock) int64 {
	if t.at == 0 {
		t.at = c.Now().UnixMicro()
	}
	return t.at
}

// lastWide is the last of a batch that is for many.
func lastWide(batch []*channel.Envelope) int {
	for i := len(batch) - 1; i >= 0; i-- {
		if batch[i].Kind == channel.Deliver && len(batch[i].To) > 1 {
			return i
		}
	}
	return -1
}

// came is add for a delivery. Who gets nothing else is flushed at once, while what
// it takes is at hand.
func (t *touched) came(s *Session) {
	if t.last && s.touched.Load() != t.batch {
		s.flush()
		return
	}
	t.add(s)
}

// add is for any number of times.
func (t *touched) add(s *Session) {
	if s.touched.Swap(t.batch) != t.batch { // another batch may have come between: then it is flushed twice
		t.list = append(t.list, s)
	}
}

// flush may be called again: before every wait, and at the end.
func (t *touched) flush() {
	for _, s := range t.list {
		s.touched.CompareAndSwap(t.batch, 0)
		s.flush()
	}
	clear(t.list)
	t.list = t.list[:0]
}
