package bosh

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"os"
	"time"

	"parley/parser/stanza"
	"parley/stream"
)

// This file is what the stream sees of a session.

var _ stream.Transport = (*session)(nil)

// Fill returns one element at a time. That the client has asked for news and
// said nothing is an empty piece of none.
func (s *session) Fill() ([]byte, error) {
	for {
		p, until, err := s.read()
		if p != nil || err != nil {
			return p, err
		}
		var late <-chan time.Time
		var t *time.Timer
		if !until.IsZero() {
			t = time.NewTimer(time.Until(until))
			late = t.C
		}
		select {
		case <-s.wake:
		case <-late:
		}
		if t != nil {
			t.Stop()
		}
	}
}

// read returns what is there, or until when to wait; zero: for ever.
func (s *session) read() ([]byte, time.Time, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.empty = false
	switch {
	case len(s.in) > 0:
		p := s.in[0]
		s.in[0], s.in = nil, s.in[1:]
		if len(s.in) == 0 {
			s.in = nil
			s.advance()
		}
		return p, time.Time{}, nil
	case s.ended, s.told:
		return nil, time.Time{}, io.EOF
	case s.beat:
		s.beat, s.empty = false, true
		return []byte{}, time.Time{}, nil
	case !s.due.IsZero() && !time.Now().Before(s.due):
		return nil, time.Time{}, os.ErrDeadlineExceeded
	}
	return nil, s.due, nil
}

// Partial tells a beat from a message.
func (s *session) Partial() bool { return s.empty }

// nudge wakes the reader.
func (s *session) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// SetReadDeadline implements stream.Transport.
func (s *session) SetReadDeadline(t time.Time) {
	s.mu.Lock()
	s.due = t
	s.mu.Unlock()
	s.nudge()
}

// What the stream queues that is no element for the client.
var (
	openTag    = []byte("<open xmlns='" + stanza.NSFraming + "'")
	closeTag   = []byte("<close xmlns='" + stanza.NSFraming + "'")
	errorTag   = []byte("<stream:error")
	successTag = []byte("<success ")
)

// Queue implements stream.Transport.
func (s *session) Queue(p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.ended || s.told:
		return
	case bytes.HasPrefix(p, openTag):
		s.header = headerOf(p)
		return
	case bytes.HasPrefix(p, closeTag):
		s.closed = true
		return
	case bytes.HasPrefix(p, errorTag):
		s.reason = streamError
	case bytes.HasPrefix(p, successTag):
		s.inside = true
	}
	s.out = append(s.out, p)
	s.size += len(p)
}

// headerOf is what a response tells of a stream that opens (XEP-0206 §4).
func headerOf(open []byte) []byte {
	var r response
	if el, err := stanza.ParseElement(open, ""); err == nil {
		r.set("xmpp:version", "1.0")
		r.set("authid", el.Get("id"))
		r.set("from", el.Get("from"))
	}
	return r.attrs
}

// Flush implements stream.Transport.
func (s *session) Flush() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flush()
	s.repose()
	if s.ended {
		return -1
	}
	return s.size + s.sending
}

// flush answers as many requests as there is something to tell; s.mu is held.
func (s *session) flush() {
	for len(s.held) > 0 && (s.size > 0 || s.closed) && !s.told {
		if s.held[0].q.terminate && !s.closed { // its answer is the last one
			return
		}
		s.answer()
		if s.closed && s.size == 0 {
			return
		}
	}
}

// answer gives the oldest request that is held what there is; s.mu is held.
func (s *session) answer() {
	var r response
	n := 0
	for len(s.out) > 0 && (n == 0 || n+len(s.out[0]) <= answerSize) {
		n += len(s.out[0])
		r.payload = append(r.payload, s.out[0])
		s.out[0], s.out = nil, s.out[1:]
	}
	if len(s.out) == 0 {
		s.out = nil
	}
	s.size -= n
	s.sending += n
	last := s.closed && s.size == 0
	if last {
		r.end(s.reason)
	}
	s.give(&r, n, last)
}

// bare answers the oldest request with nothing; s.mu is held.
func (s *session) bare() { s.give(&response{}, 0, false) }

// give is s.mu held.
func (s *session) give(r *response, size int, last bool) {
	x := s.held[0]
	s.held[0], s.held = nil, s.held[1:]
	x.timer()
	if x.q == s.creation {
		s.introduce(r)
	}
	r.attrs = append(r.attrs, s.header...)
	s.header = nil
	if s.acks && x.q != s.creation && s.next-1 != x.q.rid { // XEP-0124 §9.1
		r.setInt("ack", s.next-1)
	}
	s.barren = size == 0
	a := &answer{rid: x.q.rid, body: r.render(), size: size, last: last}
	s.remember(a)
	if !x.lost {
		x.reply <- a
	}
}

// remember keeps an answer for who does not get it, when there is room; s.mu is held.
func (s *session) remember(a *answer) {
	for len(s.answered) >= s.requests {
		s.drop()
	}
	if !s.l.keeps(len(a.body)) { // who loses it begins anew
		for len(s.answered) > 0 {
			s.drop()
		}
		return
	}
	s.answered = append(s.answered, a)
}

// drop is of the oldest answer; s.mu is held.
func (s *session) drop() {
	a := s.answered[0]
	s.answered[0], s.answered = nil, s.answered[1:]
	s.forget(a)
	s.l.kept.Add(-int64(len(a.body)))
}

// unremember is of all; s.mu is held.
func (s *session) unremember() {
	for len(s.answered) > 0 {
		s.drop()
	}
}

// forget takes an answer for received: a client that goes on has it. s.mu is held.
func (s *session) forget(a *answer) {
	s.sending -= a.size
	a.size = 0
}

// introduce is the session creation response (XEP-0124 §7.2, XEP-0206 §4).
func (s *session) introduce(r *response) {
	r.set("sid", s.sid)
	r.set("ver", "1.11")
	r.setInt("wait", uint64(s.wait/time.Second))
	r.setInt("hold", uint64(s.hold))
	r.setInt("requests", uint64(s.requests))
	r.setInt("inactivity", uint64(s.inactivity/time.Second))
	r.setInt("polling", uint64(s.l.cfg.Polling/time.Second))
	r.setInt("maxpause", uint64(s.l.cfg.MaxPause/time.Second))
	if s.acks {
		r.setInt("ack", s.creation.rid)
	}
	r.set("xmpp:restartlogic", "true")
}

// wrote notes that an answer was written, or not.
func (s *session) wrote(a *answer, err error) {
	s.mu.Lock()
	if err == nil {
		s.forget(a)
	}
	if err == nil && a.last && !s.told {
		s.told = true
		s.awake()
		s.unremember()
		s.l.sessions.remove(s)
		s.nudge()
		s.goneOnce.Do(func() { close(s.gone) })
		for len(s.held) > 0 { // XEP-0124 §13: nothing is left to ask for
			x := s.held[0]
			s.held = s.held[1:]
			x.timer()
			if !x.lost {
				x.reply <- &answer{body: terminated("")}
			}
		}
	}
	s.repose()
	f := s.drained
	if s.size+s.sending > 0 || s.ended {
		f = nil
	}
	s.mu.Unlock()
	if f != nil {
		f()
	}
}

// Pending implements stream.Transport.
func (s *session) Pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.size + s.sending
}

// OnDrained implements stream.Transport.
func (s *session) OnDrained(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drained = f
}

// lastWords is what the last answer gets to be written.
const lastWords = time.Second

// Close implements stream.Transport. A client that has no request here is told
// when it makes the next one, as long as it is not taken for gone.
func (s *session) Close(grace time.Duration) {
	s.mu.Lock()
	if !s.closed {
		s.closed, s.reason = true, connectionFailed
	}
	s.deaf, s.in = true, nil
	s.advance()
	s.flush()
	here := len(s.held) > 0 || s.sending > 0
	s.mu.Unlock()
	if grace <= 0 || !here {
		return
	}
	t := time.NewTimer(min(grace, lastWords))
	defer t.Stop()
	select {
	case <-s.gone:
	case <-t.C:
	}
}

// loggedIn reports whether the client may send more than it takes to log in.
func (s *session) loggedIn() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inside
}

// RemoteAddr implements stream.Transport.
func (s *session) RemoteAddr() net.Addr { return s.addr }

// Framed implements stream.Transport.
func (s *session) Framed() bool { return true }

// Name implements stream.Transport.
func (s *session) Name() string { return "bosh" }

// TLS implements stream.Transport.
func (s *session) TLS() *tls.ConnectionState { return s.tls }

// StartTLS implements stream.Transport (XEP-0206 §2).
func (s *session) StartTLS(*tls.Config, time.Duration) error { return stream.ErrNoUpgrade }
