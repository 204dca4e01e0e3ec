package stream

import (
	"context"
	"crypto/rand"
	"strconv"
	"time"

	"parley/parser/stanza"
	"parley/router/sessions"
)

// management is stream management of one session (XEP-0198); Session.mu
// guards it. Both directions count with 64 bits and show 32 of them, which is
// the wrap at 2^32 that §4 asks for.
type management struct {
	key    Key           // names the session for resumption; zero: it cannot be resumed
	window time.Duration // how long it may be resumed
	base   uint64        // Session.received when it was enabled

	queue []delivery // sent, not acknowledged, in order
	size  int        // bytes in queue
	gaps  int        // deliveries in queue whose bytes were given up
	// Of queue and size, what the client has asked for.
	invited, invitedSize int
	acked                uint64 // how many the client has acknowledged
	sent                 uint64 // how many it was sent: acked + len(queue)

	asked  time.Time // when the open <r/> went out; zero: none is open
	fresh  int       // sent since the last <r/>
	stored bool      // a row is among them, or a refusal: it is worth asking at once
	owed   bool      // an <r/> was answered with less than had been received
	told   uint64    // the count of the last <a/>

	refused Refusals // whose errors are in queue

	before *Outbound // what the process before this one had sent; until it is resumed
}

// Limits of stream management that are nobody's choice.
const (
	requestEvery = 5                // stanzas without a row before an <r/> is due
	requestAfter = 10 * time.Second // and how long fewer than that may wait
	awayFactor   = 2                // a session without a connection holds so many outboxes
	askedFactor  = 16               // a client that never acknowledges gets so many times Unacked of what it asks for
)

func smFeature() Feature {
	el := func(local string) stanza.Name { return stanza.Name{Space: stanza.NSSM, Local: local} }
	return Feature{
		In: Fresh | Secured | Authenticated | Established, Order: orderSM, Advertise: advertiseSM,
		Elements: map[stanza.Name]ElementHandler{
			el("enable"): smEnable,
			el("resume"): smResume,
			el("r"):      smRequested,
			el("a"):      smAcknowledged,
		},
	}
}

// advertiseSM is XEP-0198 §2.
func advertiseSM(c *Conn) *stanza.Element {
	if c.phase == Authenticated || c.phase == Established && !c.session.managed() {
		return stanza.El(stanza.NSSM, "sm")
	}
	return nil
}

func (s *Session) managed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sm != nil
}

func smFailed(c stanza.Condition) *stanza.Element {
	return stanza.El(stanza.NSSM, "failed").Add(stanza.El(stanza.NSStanzas, string(c)))
}

// smEnable is XEP-0198 §3: after binding, and once.
func smEnable(_ context.Context, c *Conn, el *stanza.Element) error {
	if c.phase != Established {
		c.Send(smFailed(stanza.UnexpectedRequest))
		return nil
	}
	s := c.session
	s.mu.Lock()
	if s.sm != nil {
		s.mu.Unlock()
		return &stanza.StreamError{Condition: stanza.StreamPolicyViolation, Text: "stream management is enabled already"}
	}
	c.Send(s.enable(el)) // what is delivered from now on is counted: not before <enabled/> is queued
	s.mu.Unlock()
	s.passNotes()
	return nil
}

// enable starts counting; s.mu is held, passNotes follows.
func (s *Session) enable(el *stanza.Element) *stanza.Element {
	s.sm = &management{base: s.received.Load()}
	enabled := stanza.El(stanza.NSSM, "enabled")
	s.sm.window = s.srv.cfg.Resumption.Window
	if s.ended || !xmlBool(el.Get("resume")) || s.sm.window <= 0 || s.ref.Peer() != sessions.Client {
		return enabled
	}
	if secs, err := strconv.ParseUint(el.Get("max"), 10, 31); err == nil && secs > 0 {
		s.sm.window = min(s.sm.window, time.Duration(secs)*time.Second)
	}
	id := rand.Text()
	s.sm.key = keyOf(id)
	s.srv.resumes.add(s.sm.key, s)
	l := Lasting{Ref: s.ref, Key: s.sm.key, Base: s.sm.base, Window: s.sm.window}
	s.note(func(k Resumptions) { k.Begin(l) })
	return enabled.With("id", id).With("resume", "true").
		With("max", strconv.Itoa(int((s.sm.window+time.Second-1)/time.Second)))
}

// xmlBool reads a boolean of XML Schema.
func xmlBool(v string) bool { return v == "true" || v == "1" }

func parseH(v string) (uint32, bool) {
	h, err := strconv.ParseUint(v, 10, 32)
	return uint32(h), err == nil
}

// refuses notes what the delivery says of the client's own; s.mu is held.
func (m *management) refuses(d delivery) {
	if d.refused > m.base {
		m.refused.Add(d.refused)
		m.stored = true
	}
}

// final is the h that the client is told of a session that does not go on; s.mu
// is held.
func (s *Session) final() uint32 { return s.sm.counted(s.sm.refused.Below(s.durable.Load())) }

// counted is the h for the client: what is done, since stream management was
// enabled. done may lag behind the base.
func (m *management) counted(done uint64) uint32 { return uint32(max(done, m.base) - m.base) }

// smRequested answers <r/> at once with what is safe; what is still on its way is acknowledged when it has arrived (see ackOwed).
func smRequested(_ context.Context, c *Conn, _ *stanza.Element) error {
	s, err := c.managedSession()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == c { // else the session has left this connection behind
		s.acknowledge()
	}
	return nil
}

// managedSession fails for elements that stream management alone understands
// (RFC 6120 §4.9.3.24).
func (c *Conn) managedSession() (*Session, error) {
	if c.phase < Authenticated {
		return nil, &stanza.StreamError{Condition: stanza.StreamNotAuthorized}
	}
	if c.phase != Established || !c.session.managed() {
		return nil, &stanza.StreamError{Condition: stanza.StreamUnsupportedStanzaType, Text: "stream management is not enabled"}
	}
	return c.session, nil
}

// acknowledge queues an <a/>; s.mu is held.
func (s *Session) acknowledge() {
	m := s.sm
	m.told = s.safe()
	m.owed = m.told < s.received.Load()
	s.conn.Send(stanza.El(stanza.NSSM, "a").With("h", strconv.FormatUint(uint64(m.counted(m.told)), 10)))
}

// ackOwed tells the client unasked that what its <r/> asked about has become
// durable; true: something was queued. s.mu is held.
func (s *Session) ackOwed() bool {
	m := s.sm
	if m == nil || !m.owed || s.conn == nil || s.opening || s.conn.closing.Load() || s.safe() <= m.told {
		return false
	}
	s.acknowledge()
	return true
}

// smAcknowledged is XEP-0198 §4.
func smAcknowledged(_ context.Context, c *Conn, el *stanza.Element) error {
	s, err := c.managedSession()
	if err != nil {
		return err
	}
	h, ok := parseH(el.Get("h"))
	if !ok {
		return &stanza.StreamError{Condition: stanza.StreamBadFormat, Text: "h is not a number"}
	}
	s.mu.Lock()
	err = s.acknowledged(h)
	if err == nil {
		s.request()
	}
	news := len(s.notes) > 0
	s.mu.Unlock()
	if news {
		s.passNotes()
	}
	return err
}

// acknowledged takes what the client has off the queue; s.mu is held, passNotes
// follows.
func (s *Session) acknowledged(h uint32) error {
	m := s.sm
	at := m.position(h)
	if at > m.sent {
		return m.tooHigh(h)
	}
	m.asked = time.Time{}
	if at <= m.acked {
		return nil
	}
	n := int(at - m.acked)
	var rows []int64
	var heard uint64
	for i, d := range m.queue[:n] {
		m.count(d, -1)
		if d.row != 0 {
			rows = append(rows, d.row)
		}
		heard = max(heard, d.refused)
		m.queue[i] = delivery{}
	}
	m.queue = m.queue[n:]
	m.acked = at
	m.fresh = min(m.fresh, len(m.queue))
	if len(m.queue) == 0 {
		m.queue, m.stored = nil, false
	}
	if len(rows) > 0 {
		s.srv.acks.add(s.ref, rows...)
	}
	if heard != 0 {
		m.refused.Heard(heard)
		s.note(func(k Resumptions) { k.Heard(s.ref, heard) })
		s.ackOwed()
	}
	return nil
}

// tooHigh is XEP-0198 §6.
func (m *management) tooHigh(h uint32) error {
	count := strconv.FormatUint(uint64(uint32(m.sent)), 10)
	given := strconv.FormatUint(uint64(h), 10)
	return &stanza.StreamError{
		Condition: stanza.StreamUndefinedCondition,
		Text:      "You acknowledged " + given + " stanzas, but I only sent you " + count + " so far.",
		App:       stanza.El(stanza.NSSM, "handled-count-too-high").With("h", given).With("send-count", count),
	}
}

// position is the count that h stands for: the one nearest to what is known.
func (m *management) position(h uint32) uint64 {
	const lap = 1 << 32
	at := m.acked&^(lap-1) | uint64(h)
	switch {
	case at+lap/2 < m.acked: // has wrapped since
		at += lap
	case at > m.sent && at >= lap && at-lap+lap/2 > m.acked: // from before the last wrap
		at -= lap
	}
	return at
}

// request asks for an acknowledgement when there is something worth asking
// for and no question is open; s.mu is held.
func (s *Session) request() {
	m := s.sm
	if m == nil || s.conn == nil || s.opening || s.conn.closing.Load() || !m.asked.IsZero() {
		return
	}
	if m.fresh >= requestEvery || m.stored {
		s.ask()
	}
}

// ask queues an <r/>; s.mu is held.
func (s *Session) ask() {
	s.sm.asked, s.sm.fresh, s.sm.stored = s.srv.env.Clock.Now(), 0, false
	s.conn.Send(stanza.El(stanza.NSSM, "r"))
}

// putManaged queues a delivery until the client acknowledges it. The queue is
// bounded in stanzas and bytes. Beyond the bound (reliability rows 5, 27)
//
//   - what the client asked for itself is sent all the same, but not kept: the
//     session cannot be resumed until it is acknowledged;
//   - a client with a connection loses that and may come back, with as much
//     room again;
//   - a session without a connection ends, and so does one that cannot be
//     resumed; what it did not take is handed back to the house.
//
// s.mu is held.
func (s *Session) putManaged(d delivery) bool {
	m := s.sm
	over := m.exceeds(d.bytes(), s.outbox(), s.srv.cfg.Resumption.Unacked)
	if d.solicited {
		over = m.full(d.bytes(), s.outbox(), s.srv.cfg.Resumption.Unacked)
	}
	switch {
	case !over:
		m.push(d)
	case s.conn == nil:
		m.push(d)
		if m.exceeds(0, awayFactor*s.outbox(), awayFactor*s.srv.cfg.Resumption.Unacked) {
			s.cutOff()
		}
	case d.solicited && len(m.queue) < askedFactor*s.srv.cfg.Resumption.Unacked:
		s.write(d)
		d.raw, d.to = nil, ""
		m.push(d)
		return true
	case m.resumable():
		m.push(d)
		s.detachSlow()
	default:
		m.push(d)
		s.cutOff()
	}
	if s.conn == nil || s.broken || over {
		return false
	}
	return s.write(d)
}

// write gives a delivery to the transport; s.mu is held.
func (s *Session) write(d delivery) bool {
	if s.conn.closing.Load() {
		return false
	}
	s.conn.sendStanza(d.raw, d.to)
	return true
}

// detachSlow takes a client that does not read off its connection; it may
// resume. s.mu is held.
func (s *Session) detachSlow() {
	s.srv.metrics.overflows.Inc()
	c := s.conn
	c.log.Info("client does not read: detached", "jid", s.ref.JID.String())
	s.hibernate()
	s.srv.later(func(ctx context.Context) {
		c.tr.Close(0)
		s.tellHibernated(ctx)
	})
}

// exceeds tells whether n more bytes are too many of what nobody has asked for: who
// enters a large room is not cut off by the first thing that is said there. An empty
// queue takes any one stanza (house: back-pressure).
func (m *management) exceeds(n, bytes, stanzas int) bool {
	own := len(m.queue) - m.invited
	return own > 0 && (m.size-m.invitedSize+n > bytes || own >= stanzas)
}

// full tells whether n more bytes are too many altogether.
func (m *management) full(n, bytes, stanzas int) bool {
	return len(m.queue) > 0 && (m.size+n > bytes || len(m.queue) >= stanzas)
}

// count takes note of a delivery that comes into the queue, or with -1 leaves it.
func (m *management) count(d delivery, sign int) {
	m.size += sign * d.bytes()
	if d.raw == nil {
		m.gaps += sign
	}
	if d.solicited {
		m.invited += sign
		m.invitedSize += sign * d.bytes()
	}
}

func (m *management) push(d delivery) {
	d.from = zeroJID
	m.queue = append(m.queue, d)
	m.count(d, 1)
	m.sent++
	m.fresh++
	m.stored = m.stored || d.row != 0
	m.refuses(d)
}

// resumable reports whether the session may outlive its connection.
func (m *management) resumable() bool { return m != nil && m.key != Key{} && m.gaps == 0 }

// resend writes everything that is not acknowledged; s.mu is held.
func (s *Session) resend() {
	m := s.sm
	for _, d := range m.queue {
		s.write(d)
		m.stored = m.stored || d.row != 0 || d.refused != 0
	}
	m.fresh = len(m.queue)
}
