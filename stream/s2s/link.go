package s2s

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"parley/parser/stanza"
	"parley/stream"
)

// Bounds of a stream to another server.
const (
	outbox = 1 << 20 // bytes that its socket has not taken
	// ackWithin is how long it has to acknowledge what it is asked about.
	ackWithin = time.Minute
)

// link is a stream to another server: the profile of its Conn. What is not said to
// be guarded by route.mu is the reader's.
type link struct {
	initiating
	route *route
	err   error // why it ends, when we know

	external bool // SASL EXTERNAL was tried
	authed   bool // and has succeeded
	dialback bool // a key was sent
	proven   bool // either has succeeded
	method   string

	// Guarded by route.mu.
	conn    *stream.Conn
	since   time.Time
	ready   bool
	managed bool   // it acknowledges (XEP-0198)
	unacked []item // written
	bytes   int    // of unacked
	acked   uint32
	asked   time.Time // zero: no question is open
}

var (
	_ stream.Initiator = (*link)(nil)
	_ stream.Declarer  = (*link)(nil)
)

func newLink(r *route) *link {
	return &link{initiating: r.out.initiating(r.pair), route: r, since: r.out.env.Clock.Now()}
}

// why it was no stream.
func (l *link) why() error {
	if l.err != nil {
		return l.err
	}
	return errors.New("the connection has ended")
}

// Begin implements stream.Initiator.
func (l *link) Begin(c *stream.Conn) {
	l.route.mu.Lock()
	l.conn = c
	gone := l.route.gone
	l.route.mu.Unlock()
	c.OpenTo(l.from, l.to)
	if gone {
		c.Goodbye()
	}
}

// Ended implements stream.Initiator.
func (l *link) Ended() { l.route.lost(l) }

// Header implements stream.Profile.
func (l *link) Header(_ context.Context, c *stream.Conn, h *stanza.Element) error {
	l.header(h)
	if l.old { // it sends no features
		l.features(c, nil)
	}
	return nil
}

// linkElements is what the other side may say.
var linkElements = map[stanza.Name]func(*link, *stream.Conn, *stanza.Element) error{
	elFeatures: func(l *link, c *stream.Conn, el *stanza.Element) error { l.features(c, el); return nil },
	elProceed: func(l *link, c *stream.Conn, _ *stanza.Element) error {
		if l.err = l.proceed(c); l.err != nil {
			c.Transport().Close(0) // no words
		}
		return nil
	},
	elChallenge: func(l *link, c *stream.Conn, _ *stanza.Element) error {
		c.Send(stanza.El(stanza.NSSASL, "response").AddText(authzid(l.from)))
		return nil
	},
	elSuccess: (*link).success,
	elFailure: (*link).failure,
	elNoTLS: func(l *link, c *stream.Conn, _ *stanza.Element) error {
		return l.fail(c, errors.New("it cannot start TLS"))
	},
	elResult:  (*link).result,
	elVerify:  func(*link, *stream.Conn, *stanza.Element) error { return nil },
	elEnabled: func(l *link, _ *stream.Conn, _ *stanza.Element) error { l.open(true); return nil },
	elFailed:  func(l *link, _ *stream.Conn, _ *stanza.Element) error { l.open(false); return nil },
	elAck:     (*link).acknowledged,
	elRequest: func(_ *link, c *stream.Conn, _ *stanza.Element) error { // it sends no stanzas here
		c.Send(stanza.El(stanza.NSSM, "a").With("h", "0"))
		return nil
	},
	elError: func(l *link, c *stream.Conn, el *stanza.Element) error {
		if err := streamError(el); !l.proven {
			l.err = err
		} else {
			l.route.log.Info("another server ends the stream", "err", err)
		}
		c.Goodbye()
		return nil
	},
}

// Element implements stream.Profile.
func (l *link) Element(_ context.Context, c *stream.Conn, t stanza.Token) error {
	h := linkElements[t.Name]
	if h == nil {
		return &stanza.StreamError{Condition: stanza.StreamUnsupportedStanzaType}
	}
	el, err := parse(t)
	if err != nil {
		return err
	}
	return h(l, c, el)
}

// fail ends the stream for a reason of ours.
func (l *link) fail(c *stream.Conn, err error) error {
	if err != nil {
		l.err = err
		c.Goodbye()
	}
	return nil
}

// features goes on with what is offered: TLS, then the proof.
func (l *link) features(c *stream.Conn, offered *stanza.Element) {
	safe, err := l.secured(c, offered)
	switch {
	case err != nil:
		_ = l.fail(c, err)
	case !safe:
	case l.authed:
		l.proved(c, offered)
	case offered != nil && !l.external && external(offered):
		l.external = true
		c.Send(stanza.El(stanza.NSSASL, "auth").With("mechanism", "EXTERNAL").AddText(authzid(l.from)))
	default:
		l.callBack(c)
	}
}

// external reports whether our certificate counts there (XEP-0178 §3).
func external(offered *stanza.Element) bool {
	m := offered.Child(stanza.NSSASL, "mechanisms")
	if m == nil {
		return false
	}
	for el := range m.Elements() {
		if el.Text() == "EXTERNAL" {
			return true
		}
	}
	return false
}

// callBack lets the other side ask our domain's server, which is us (XEP-0220
// §2.1.1).
func (l *link) callBack(c *stream.Conn) {
	if l.dialback {
		return
	}
	l.dialback = true
	c.SendRaw(dialbackElement("result", l.pair, "", "", l.out.keys.key(l.to, l.from, l.id)))
}

func (l *link) success(c *stream.Conn, _ *stanza.Element) error {
	if !l.external {
		return &stanza.StreamError{Condition: stanza.StreamUnsupportedStanzaType}
	}
	l.authed, l.method = true, "certificate"
	c.Restart()
	c.OpenTo(l.from, l.to)
	return nil
}

func (l *link) failure(c *stream.Conn, _ *stanza.Element) error {
	l.out.metrics.proofs.WithLabelValues("out", "certificate", "refused").Inc()
	l.callBack(c)
	return nil
}

// result is what came of dialback.
func (l *link) result(c *stream.Conn, el *stanza.Element) error {
	if !l.dialback || el.Get("from") != l.to || el.Get("to") != l.from {
		return nil
	}
	switch el.Get("type") {
	case "valid":
		l.method = "dialback"
		l.proved(c, nil)
	case "error": // XEP-0220 §2.4
		why := stanza.ParseError(el.Child(stanza.NSServer, "error"))
		return l.fail(c, fmt.Errorf("it does not believe us: %w", given(why)))
	default:
		l.out.metrics.proofs.WithLabelValues("out", "dialback", "refused").Inc()
		return l.fail(c, errors.New("it does not believe us: the key is not valid"))
	}
	return nil
}

// given is the reason, if there is one.
func given(e *stanza.Error) error {
	if e == nil {
		return errors.New("no reason given")
	}
	return e
}

// proved goes on when the other side knows who we are; offered are its features.
func (l *link) proved(c *stream.Conn, offered *stanza.Element) {
	if l.proven {
		return
	}
	l.proven = true
	l.out.metrics.proofs.WithLabelValues("out", l.method, "accepted").Inc()
	c.Settle(l.drained)
	if offered != nil && offered.Child(stanza.NSSM, "sm") != nil {
		c.Send(stanza.El(stanza.NSSM, "enable"))
		return
	}
	l.open(false)
}

// open lets stanzas out.
func (l *link) open(managed bool) {
	if !l.proven {
		return
	}
	l.route.mu.Lock()
	if l.ready {
		l.route.mu.Unlock()
		return
	}
	l.managed = managed
	remote := l.conn.Transport().RemoteAddr().String()
	l.route.mu.Unlock()
	l.route.log.Info("stream to another server", "remote", remote, "by", l.method, "certificate", l.trusted == nil, "acknowledged", managed)
	l.route.opened(l)
}

// drained is Transport.OnDrained.
func (l *link) drained() {
	r := l.route
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.link == l {
		r.pump(r.out.env.Clock.Now())
	}
}

// room reports whether n more bytes may be written; route.mu is held.
func (l *link) room(n int) bool {
	if waiting := l.conn.Transport().Pending(); waiting > 0 && waiting+n > outbox {
		return false
	}
	q := &l.cfg.Queue
	return !l.managed || len(l.unacked) == 0 || len(l.unacked) < q.Stanzas && l.bytes+n <= int(q.Bytes)
}

// write puts a stanza on the way; false: the stream is closed. route.mu is held.
func (l *link) write(it item) bool {
	if !l.conn.SendRaw(it.raw) {
		return false
	}
	if l.managed {
		l.unacked = append(l.unacked, it)
		l.bytes += len(it.raw)
	}
	return true
}

// request asks how much has arrived; route.mu is held.
func (l *link) request(now time.Time) {
	if l.managed && l.asked.IsZero() && len(l.unacked) > 0 {
		l.asked = now
		l.conn.SendRaw([]byte("<r xmlns='" + stanza.NSSM + "'/>"))
	}
}

// acknowledged is XEP-0198 §4.
func (l *link) acknowledged(_ *stream.Conn, el *stanza.Element) error {
	h, err := strconv.ParseUint(el.Get("h"), 10, 32)
	if err != nil {
		return &stanza.StreamError{Condition: stanza.StreamBadFormat, Text: "h is not a number"}
	}
	now := l.out.env.Clock.Now()
	r := l.route
	r.mu.Lock()
	defer r.mu.Unlock()
	n := int(uint32(h) - l.acked)
	if !l.managed || n > len(l.unacked) {
		return &stanza.StreamError{Condition: stanza.StreamUndefinedCondition, App: stanza.El(stanza.NSSM, "handled-count-too-high")}
	}
	for _, it := range l.unacked[:n] {
		l.bytes -= len(it.raw)
	}
	clear(l.unacked[:n])
	l.unacked = l.unacked[n:]
	l.acked, l.asked = uint32(h), time.Time{}
	if r.link == l {
		r.pump(now)
	}
	l.request(now)
	return nil
}

// tend cuts off who does not answer; route.mu is held.
func (l *link) tend(now time.Time, cfg *settings) {
	late := !l.ready && now.Sub(l.since) > 2*cfg.Connect || !l.asked.IsZero() && now.Sub(l.asked) > ackWithin
	if late && l.conn != nil {
		l.conn.Abort(&stanza.StreamError{Condition: stanza.StreamConnectionTimeout})
	}
}
