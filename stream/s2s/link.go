package s2s

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"parley/parser/stanza"
	"parley/stream"
)

// link is a stream to another server: the profile of its Conn. What is not said to
// be shared is the reader's.
type link struct {
	initiating
	route *route
	in    *incoming // what the other side may say on it, when it goes both ways
	err   error     // why it ends, when we know

	external bool // SASL EXTERNAL was tried
	authed   bool // and has succeeded
	dialback bool // a key was sent
	bidi     bool // it was asked to go both ways
	proven   bool // either has succeeded
	ready    bool // stanzas go out
	method   Proof

	carrier // shared; conn is guarded by route.mu until the stream is ready
	since   time.Time
	heard   atomic.Int64 // shared: when something was said on it, in unix nanoseconds
}

var (
	_ stream.Initiator = (*link)(nil)
	_ stream.Declarer  = (*link)(nil)
	_ stream.Guard     = (*link)(nil)
)

func newLink(r *route) *link {
	l := &link{initiating: r.out.initiating(r.pair), route: r, since: r.out.env.Clock.Now()}
	l.queue = &l.cfg.Queue
	l.in = &incoming{out: r.out, cfg: l.cfg, from: l.to, to: l.from, pairs: map[pair]shown{}}
	return l
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
func (l *link) Ended() {
	if !l.ready {
		l.route.unmade(l)
		return
	}
	l.route.out.withdraw(&l.carrier)
	l.route.out.metrics.streams.WithLabelValues("out").Dec()
	l.carrier.ended(l.err)
}

// Admit implements stream.Guard: what the other side says on a stream that goes
// both ways.
func (l *link) Admit(c *stream.Conn, raw []byte) error {
	l.heard.Store(l.out.env.Clock.Now().UnixNano())
	return l.in.Admit(c, raw)
}

// Header implements stream.Profile.
func (l *link) Header(_ context.Context, c *stream.Conn, h *stanza.Element) error {
	l.header(h)
	if l.old { // it sends no features
		return l.features(c, nil)
	}
	return nil
}

// linkElements is what the other side may say.
var linkElements = map[stanza.Name]func(*link, *stream.Conn, *stanza.Element) error{
	elFeatures: (*link).features,
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
	elResult: func(l *link, c *stream.Conn, el *stanza.Element) error {
		if l.bidi && l.proven && !el.Has("type") { // it speaks for a further domain (XEP-0288 §2.2)
			l.in.id = l.id
			return l.in.result(l.out.ctx, c, el)
		}
		return l.result(c, el)
	},
	elVerify:  func(*link, *stream.Conn, *stanza.Element) error { return nil },
	elEnabled: func(l *link, c *stream.Conn, _ *stanza.Element) error { c.Count(); l.open(true); return nil },
	elFailed:  func(l *link, _ *stream.Conn, _ *stanza.Element) error { l.open(false); return nil },
	elAck: func(l *link, c *stream.Conn, el *stanza.Element) error {
		c.Answered()
		return l.acknowledged(el, l.out.env.Clock.Now())
	},
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
func (l *link) Element(ctx context.Context, c *stream.Conn, t stanza.Token) error {
	if t.Name == elRequest && c.Bound() {
		_, err := c.Managed(ctx, t)
		return err
	}
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
func (l *link) features(c *stream.Conn, offered *stanza.Element) error {
	safe, err := l.secured(c, offered)
	if err == nil && safe && !l.authed {
		l.bothWays(c, offered)
	}
	switch {
	case err != nil:
		return l.fail(c, err)
	case !safe:
	case l.authed:
		return l.proved(c, offered)
	case offered != nil && !l.external && external(offered):
		l.external = true
		c.Send(stanza.El(stanza.NSSASL, "auth").With("mechanism", "EXTERNAL").AddText(authzid(l.from)))
	default:
		l.callBack(c)
	}
	return nil
}

// bothWays asks for a stream that brings the other side's stanzas as well (XEP-0288
// §2.2), before the proof and under TLS only. Who answers where DNS has led us, with
// the certificate that the policy asks for, is as sure to be that domain as one that
// has called us and passed dialback.
func (l *link) bothWays(c *stream.Conn, offered *stanza.Element) {
	if l.bidi || !l.cfg.Bidi || c.Fresh() || offered == nil || offered.Child(nsBidiFeature, "bidi") == nil {
		return
	}
	l.bidi = true
	c.Send(stanza.El(nsBidi, "bidi"))
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
	l.authed, l.method = true, Certificate
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
		l.method = Dialback
		return l.proved(c, nil)
	case "error": // XEP-0220 §2.4
		why := stanza.ParseError(el.Child(stanza.NSServer, "error"))
		return l.fail(c, fmt.Errorf("it does not believe us: %w", given(why)))
	default:
		l.out.metrics.proofs.WithLabelValues("out", "dialback", "refused").Inc()
		return l.fail(c, errors.New("it does not believe us: the key is not valid"))
	}
}

// given is the reason, if there is one.
func given(e *stanza.Error) error {
	if e == nil {
		return errors.New("no reason given")
	}
	return e
}

// proved goes on when the other side knows who we are; offered are its features.
func (l *link) proved(c *stream.Conn, offered *stanza.Element) error {
	if l.proven {
		return nil
	}
	l.proven = true
	l.out.metrics.proofs.WithLabelValues("out", string(l.method), "accepted").Inc()
	if l.bidi {
		l.heard.Store(l.out.env.Clock.Now().UnixNano())
		how := shown{at: l.out.env.Clock.Now(), by: Dialback, tls: true, both: true} // DNS has led us there
		if l.trusted == nil {
			how.by = Certificate
		}
		l.in.let(pair{l.to, l.from}, how)
		if err := l.in.bind(l.out.ctx, c, l.to); err != nil {
			return err
		}
	}
	c.Settle(func() { l.pump(l.out.env.Clock.Now()) })
	if offered != nil && offered.Child(stanza.NSSM, "sm") != nil {
		c.Send(stanza.El(stanza.NSSM, "enable"))
		return nil
	}
	l.open(false)
	return nil
}

// open lets stanzas out.
func (l *link) open(managed bool) {
	if !l.proven || l.ready {
		return
	}
	l.ready = true
	l.manage(func() bool { return managed })
	if l.bidi { // what further domains have proven meanwhile goes both ways from now on
		l.in.back = &l.carrier
		l.in.offer(slices.DeleteFunc(l.in.proved(), func(p pair) bool { return p == pair{l.to, l.from} })...)
	}
	remote := l.conn.Transport().RemoteAddr().String()
	l.route.log.Info("stream to another server", "remote", remote, "by", l.method, "certificate", l.trusted == nil, "acknowledged", managed, "both_ways", l.bidi)
	l.out.metrics.connects.WithLabelValues("connected").Inc()
	l.out.metrics.streams.WithLabelValues("out").Inc()
	l.route.opened(l, shown{by: l.method, tls: !l.conn.Fresh(), both: l.bidi})
}

// tend cuts off a stream that does not come about; route.mu is held.
func (l *link) tend(now time.Time, cfg *settings) {
	if l.conn != nil && now.Sub(l.since) > 2*cfg.Connect {
		l.conn.Abort(&stanza.StreamError{Condition: stanza.StreamConnectionTimeout})
	}
}
