package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/router/channel"
	"parley/stream/sasl"
)

// Profile is what a kind of stream does before it is bound: a client's
// (RFC 6120), an external component's (XEP-0114).
type Profile interface {
	// ContentNS is the namespace of its stanzas.
	ContentNS() string
	// Header answers the peer's stream header.
	Header(ctx context.Context, c *Conn, h *stanza.Element) error
	// Element takes a first-level element of a stream that is not bound, or
	// one that is no stanza.
	Element(ctx context.Context, c *Conn, t stanza.Token) error
}

// Conn is one transport and the stream on it. Its reader, which is one goroutine
// at a time, owns every field that is not said to be shared.
type Conn struct {
	srv     *Server
	tr      Transport
	rd      *stanza.Reader
	profile Profile
	log     *slog.Logger
	number  uint64
	origin  netip.Prefix
	limiter *limiter

	phase Phase
	// What whoever closes the stream has to know: the reader alone changes it,
	// and others read it, with voice held; so is our end closed, and what the
	// reader says of its own goes before that or not at all.
	voice   sync.Mutex
	opened  bool    // our header is out
	id      string  // of the stream (RFC 6120 §4.7.3)
	domain  string  // which of ours the peer wants to talk to
	claimed jid.JID // 'from' of the peer's header

	lang      string // the stream's xml:lang, stamped on stanzas without one
	auth      *authentication
	binding   sasl.Binding
	offered   *sasl.Session // what this stream announces of SASL; nil: not settled
	account   jid.JID       // who logged in, bare
	device    string        // SASL2 user-agent id
	authFails int
	bindFails int

	inside  *table // whose handlers run now; nil: none do
	session *Session
	batch   []*channel.Envelope
	room    []channel.Envelope // for more of batch
	inFrame int                // elements of the message that is being read (framed transports)

	// After our end is closed reading goes on, until the peer closes its own or
	// the time for that is over (RFC 6120 §4.4).
	farewell bool // what comes is ignored
	ignored  int  // bytes

	closeOnce  sync.Once
	closing    atomic.Bool   // shared: our end of the stream is closed
	pausing    atomic.Bool   // shared: because the server stops; the session need not end with it
	hasSession atomic.Bool   // shared: it has a session
	left       chan struct{} // shared: closed when the session gets nothing more from this connection
	detached   bool
}

// streamLang is the language of our streams: of error texts, and what stanzas
// without xml:lang inherit.
const streamLang = "en"

// maxLang is the longest language that goes with a stream's stanzas, in bytes;
// tags of registered parts are shorter than 35 (RFC 5646 §4.4.1).
const maxLang = 64

func newConn(s *Server, t Transport, p Profile) *Conn {
	c := &Conn{srv: s, tr: t, profile: p, number: s.lastID.Add(1), origin: OriginOf(t.RemoteAddr()), phase: Fresh, left: make(chan struct{})}
	c.log = s.log.With("conn", c.number)
	mode := stanza.Stream
	if t.Framed() {
		mode = stanza.Framed
	}
	c.rd = stanza.NewReader(mode, s.cfg.Limits.reader(false))
	if t.TLS() != nil || !s.needsTLS(c) {
		c.phase = Secured
	}
	return c
}

// needsTLS reports whether the peer must encrypt before it logs in.
func (s *Server) needsTLS(c *Conn) bool {
	if s.cfg.TLS.Loopback && isLoopback(c.tr.RemoteAddr()) {
		return false
	}
	return s.cfg.TLS.Required
}

// run is the reader until the stream is bound or has ended. A bound one goes on
// without its caller.
func (c *Conn) run(ctx context.Context) {
	c.log.Debug("connected", "remote", c.tr.RemoteAddr().String(), "transport", c.tr.Name())
	c.srv.metrics.connections.Inc()
	if st := c.tr.TLS(); st != nil {
		c.binding = sasl.Binding{TLS: true} // browsers know no channel, and a proxy may end TLS before us
		if !c.tr.Framed() {
			c.binding = c.srv.certs.binding(st, "")
		}
	}
	c.tr.SetReadDeadline(time.Now().Add(c.srv.cfg.Timeouts.Login))
	if i, ok := c.profile.(Initiator); ok {
		i.Begin(c)
		c.tr.Flush()
	}
	if c.pump(ctx) != bound {
		c.end(ctx)
		return
	}
	c.elementDeadline() // no longer the login's
	t, ok := c.tr.(watchable)
	if ok && t.Watch(c.srv.poller(c), func() { c.live(ctx) }) {
		return
	}
	// The stack that TLS, SASL and key derivation have grown ends here; a
	// session's own stays small.
	go c.live(ctx)
}

// live serves a bound stream until it ends or, when its socket is watched,
// until nothing is there to read.
func (c *Conn) live(ctx context.Context) {
	if c.pump(ctx) == over {
		c.end(ctx)
	}
}

// pause is why pump has returned.
type pause uint8

const (
	over   pause = iota // the stream has ended
	bound               // it has become Established
	silent              // nothing is there, and the socket is watched
)

// pump reads and handles.
func (c *Conn) pump(ctx context.Context) pause {
	before := c.phase
	for {
		p, err := c.tr.Fill()
		switch {
		case errors.Is(err, errQuiet):
			return silent
		case err != nil:
			c.readFailed(err)
			return over
		case c.farewell:
			if c.ignored += len(p); c.ignored > maxFarewell {
				return over
			}
			continue
		}
		c.session.heard()
		if err := c.limiter.wait(ctx, len(p), 0); err != nil {
			c.fail(err)
			continue
		}
		c.rd.Feed(p)
		if !c.elements(ctx) {
			return over
		}
		if c.phase == Established && before != Established {
			return bound
		}
		c.elementDeadline()
	}
}

// elementDeadline bounds the rest of an element that has begun (reliability
// row 2). Before login the deadline of the login goes on.
func (c *Conn) elementDeadline() {
	if c.phase != Established || c.closing.Load() {
		return
	}
	if c.rd.Buffered() > 0 {
		c.readUntil(time.Now().Add(c.srv.cfg.Timeouts.Element))
		return
	}
	c.readUntil(time.Time{})
}

// readUntil sets the reader's deadline, but never over the one of a stream
// that somebody is closing.
func (c *Conn) readUntil(t time.Time) {
	c.tr.SetReadDeadline(t)
	if c.closing.Load() {
		c.tr.SetReadDeadline(time.Now().Add(c.srv.cfg.Timeouts.Close))
	}
}

// elements handles what has been fed; false: the stream is over.
func (c *Conn) elements(ctx context.Context) bool {
	for {
		t, err := c.rd.Next()
		more := errors.Is(err, stanza.ErrMore)
		switch {
		case more:
			c.sendBatch(ctx)
			c.tr.Flush()
			err = c.frameEnd()
		case err == nil:
			if err = c.frameElement(); err == nil {
				err = c.token(ctx, t)
			}
		}
		switch {
		case err == nil && more:
			return true
		case err == nil:
		case errors.Is(err, errEnd):
			c.sendBatch(ctx)
			return false
		default:
			c.sendBatch(ctx)
			c.fail(err)
			c.detach(ctx)
			c.farewell = true
			return true
		}
	}
}

// partial is a framed transport whose Fill returns messages in pieces.
type partial interface {
	// Partial reports whether more of the message that Fill has begun to
	// return is to come.
	Partial() bool
}

// frameElement counts the elements of a message (RFC 7395 §3.3.3).
func (c *Conn) frameElement() error {
	if c.inFrame++; c.inFrame > 1 && c.tr.Framed() {
		return &stanza.StreamError{Condition: stanza.StreamBadFormat, Text: "one element in each message"}
	}
	return nil
}

// frameEnd checks at the end of a message that it was exactly one complete
// element (RFC 7395 §3.3.3).
func (c *Conn) frameEnd() error {
	if !c.tr.Framed() {
		return nil
	}
	if p, ok := c.tr.(partial); ok && p.Partial() {
		return nil
	}
	n := c.inFrame
	c.inFrame = 0
	switch {
	case c.rd.Buffered() > 0:
		return &stanza.StreamError{Condition: stanza.StreamNotWellFormed}
	case n != 1:
		return &stanza.StreamError{Condition: stanza.StreamBadFormat, Text: "one element in each message"}
	}
	return nil
}

func (c *Conn) token(ctx context.Context, t stanza.Token) error {
	switch {
	case c.closing.Load():
		if t.Kind == stanza.Close || t.Name == framedClose {
			return errEnd
		}
		return nil
	case t.Kind == stanza.Close || t.Kind == stanza.Item && t.Name == framedClose:
		c.sendBatch(ctx)
		c.answered(ctx)
		c.goodbye()
		return errEnd
	case t.Kind == stanza.Open:
		if err := checkHeader(t, c.profile.ContentNS()); err != nil {
			return err
		}
		return c.call(func() error { return c.header(ctx, t.Open) })
	case c.tr.Framed() && t.Name == framedOpen:
		return c.call(func() error { return c.framedHeader(ctx, t) })
	case c.tr.Framed() && !c.opened && (t.Name.Local == "open" || t.Name.Local == "close"): // RFC 7395 §3.3.2
		return &stanza.StreamError{Condition: stanza.StreamInvalidNamespace}
	case !c.opened: // RFC 7395 §3.4: <open/> comes first
		return &stanza.StreamError{Condition: stanza.StreamBadFormat}
	case c.session != nil && isStanza(t.Name, c.profile.ContentNS()):
		if g, ok := c.profile.(Guard); ok {
			if err := g.Admit(c, t.Raw); err != nil {
				return err
			}
		}
		c.accept(t)
		return nil
	}
	c.sendBatch(ctx)
	err := c.call(func() error { return c.profile.Element(ctx, c, t) })
	c.session.open() // what the element was answered with comes before any delivery
	return err
}

// call runs what components have registered; they are not stopped meanwhile.
func (c *Conn) call(do func() error) error {
	c.inside = c.srv.acquire()
	defer func() { c.inside.Leave(); c.inside = nil }()
	return c.guard(do)
}

// outside runs what waits for the peer or for time inside of a call: nobody who
// replaces a component waits for that.
func (c *Conn) outside(wait func()) {
	if c.inside == nil {
		wait()
		return
	}
	c.inside.Leave()
	defer func() { c.inside = c.srv.acquire() }()
	wait()
}

// guard lets a handler that panics cost its own stream only (reliability row 38).
func (c *Conn) guard(do func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			c.srv.metrics.panics.Inc()
			c.log.Error("stream handler panicked", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = &stanza.StreamError{Condition: stanza.StreamInternalServerError}
		}
	}()
	return do()
}

var (
	framedOpen  = stanza.Name{Space: stanza.NSFraming, Local: "open"}
	framedClose = stanza.Name{Space: stanza.NSFraming, Local: "close"}
)

func isStanza(n stanza.Name, ns string) bool {
	return n.Space == ns && (n.Local == "message" || n.Local == "presence" || n.Local == "iq")
}

// checkHeader is RFC 6120 §4.8: the root's name and the namespaces.
func checkHeader(t stanza.Token, contentNS string) error {
	switch {
	case t.Name.Space != stanza.NSStream || t.Name.Local != "stream": // §4.8.1
		return &stanza.StreamError{Condition: stanza.StreamInvalidNamespace}
	case t.DefaultNS != contentNS: // §4.8.2
		return &stanza.StreamError{Condition: stanza.StreamInvalidNamespace}
	}
	return nil
}

// framedHeader is an <open/> (RFC 7395 §3.4), the first or the one after a
// restart (§3.7); a second stream on the same WebSocket is none of these.
func (c *Conn) framedHeader(ctx context.Context, t stanza.Token) error {
	el, err := stanza.ParseElement(t.Raw, "")
	switch {
	case err != nil:
		return &stanza.StreamError{Condition: stanza.StreamNotWellFormed}
	case c.opened:
		return &stanza.StreamError{Condition: stanza.StreamBadFormat, Text: "the stream is open already"}
	case c.phase == Fresh: // RFC 7395 §3.9: TLS cannot be started later
		return &stanza.StreamError{Condition: stanza.StreamPolicyViolation, Text: "TLS is required: use wss"}
	}
	return c.header(ctx, el)
}

func (c *Conn) header(ctx context.Context, h *stanza.Element) error {
	if c.lang = h.Lang(); len(c.lang) > maxLang {
		c.lang = "" // no language that anybody knows: recipients inherit ours
	}
	claimed, _ := jid.Parse(h.Get("from"))
	c.addressed(claimed, c.domain)
	return c.profile.Header(ctx, c, h)
}

// maxRoom is for how many stanzas of one read memory is taken at once.
const maxRoom = 64

// accept takes a stanza of a bound stream into the batch.
func (c *Conn) accept(t stanza.Token) {
	s := c.session
	if c.batch == nil {
		// What is left of the read may hold as many more of its size.
		n := min(c.rd.Buffered()/max(len(t.Raw), 1)+1, maxRoom)
		c.batch, c.room = make([]*channel.Envelope, 0, n), make([]channel.Envelope, n)
	}
	if len(c.room) == 0 {
		c.room = make([]channel.Envelope, 1)
	}
	e := &c.room[0]
	c.room = c.room[1:]
	e.Kind, e.Session, e.Seq, e.Raw = channel.Stanza, s.ref, s.received.Add(1), t.Raw
	if c.lang != streamLang { // recipients inherit ours (RFC 6120 §8.1.5)
		e.Lang = c.lang
	}
	c.batch = append(c.batch, e)
}

// sendBatch puts what one read brought on the road. It is called before every
// wait and before everything that is no stanza.
func (c *Conn) sendBatch(ctx context.Context) {
	if len(c.batch) == 0 {
		return
	}
	batch := c.batch
	c.batch, c.room = nil, nil
	tooFast := c.limiter.wait(ctx, 0, len(batch))
	c.srv.metrics.received.Add(float64(len(batch)))
	defer c.session.gather()()
	// What panics outside of the guards of the stages costs this stream only.
	switch err := c.guard(func() error { return c.srv.send(context.WithoutCancel(ctx), batch...) }); {
	case errors.Is(err, channel.ErrLost): // the client sends them again when it has resumed
		c.session.orphan()
	case err != nil:
		c.log.Error("pipeline does not take stanzas", "err", err)
		c.fail(&stanza.StreamError{Condition: stanza.StreamInternalServerError})
	}
	if tooFast != nil {
		c.fail(tooFast)
	}
}

// ID is the stream's current id.
func (c *Conn) ID() string { return c.id }

// Account is who has logged in, bare; zero before.
func (c *Conn) Account() jid.JID { return c.account }

// Domain is the domain of ours that the peer addressed.
func (c *Conn) Domain() string { return c.domain }

// Transport is what the stream runs over.
func (c *Conn) Transport() Transport { return c.tr }

// restart makes the reader expect a new stream header (RFC 6120 §4.3.3); how
// is what becomes of bytes that came before.
func (c *Conn) restart(how func(*stanza.Reader, stanza.Mode)) {
	mode := stanza.Stream
	if c.tr.Framed() {
		mode = stanza.Framed
	}
	how(c.rd, mode)
	c.voice.Lock()
	defer c.voice.Unlock()
	c.opened = c.closing.Load() // who has closed our end had a header before it
}

// addressed notes who the peer says it is and which domain it wants.
func (c *Conn) addressed(claimed jid.JID, domain string) {
	c.voice.Lock()
	defer c.voice.Unlock()
	c.claimed, c.domain = claimed, domain
}

func (c *Conn) String() string { return fmt.Sprintf("stream %d of %s", c.number, c.account) }
