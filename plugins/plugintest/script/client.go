package script

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// queueLength bounds what a client holds unread. When it is full the reader waits, and the server feels it.
const queueLength = 4096

// client is one named client or connection of a script. Its steps run on one goroutine; a second one reads.
type client struct {
	name     string
	place    int // among the script's clients
	opts     *options
	decl     clientDecl
	user     string // localpart with the run's suffix; "" for a bare connection
	password string
	wanted   string // resource asked for at bind

	link     *link
	held     []item          // taken from the queue and put back
	optional waits           // patterns of <? that wait for the next expectation
	asked    map[string]bool // ids of what has gone to services of a Scattered target
	started  bool            // has been connected, or the script has said how
	dirty    bool            // sent something since its last round trip
	lastID   string          // what $id stood for in the line sent last

	mu     sync.Mutex // guards what the reader and the steps share
	full   string     // full JID once bound
	stream string     // id of the newest stream
	sm     counters
	fences map[string]chan struct{}
}

// options is what every client of a run shares.
type options struct {
	target  Target
	timeout time.Duration
	tls     *tls.Config
	via     Via
	trace   func(client, direction, text string)
}

// link is one connection with its reader.
type link struct {
	conn   net.Conn
	ws     bool
	items  chan item
	done   chan struct{} // closed to free a reader that waits for room
	ended  chan struct{} // closed when the reader has returned
	wmu    sync.Mutex
	closed sync.Once
}

// messageReader is a WebSocket connection, whose messages have borders (RFC 7395 §3.3.3).
type messageReader interface{ ReadMessage() ([]byte, error) }

// dial opens a connection and starts its reader.
func (c *client) dial(ctx context.Context, via Via) error {
	c.drop()
	kind := map[Via]DialKind{ViaDirectTLS: DirectTLS, ViaWebSocket: WebSocket, ViaBOSH: BOSH}[via] // the others start as TCP
	conn, err := c.socket(ctx, kind)
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	if via == ViaDirectTLS {
		secure := tls.Client(conn, c.tlsConfig("xmpp-client")) // XEP-0368 §3
		if err := secure.HandshakeContext(ctx); err != nil {
			conn.Close()
			return fmt.Errorf("direct TLS: %w", err)
		}
		conn = secure
	}
	c.mu.Lock()
	c.full, c.stream, c.sm.on, c.fences = "", "", false, map[string]chan struct{}{}
	c.mu.Unlock()
	c.held, c.optional, c.asked, c.dirty = nil, waits{}, nil, false
	c.start(conn, via == ViaWebSocket || via == ViaBOSH)
	return nil
}

func (c *client) socket(ctx context.Context, kind DialKind) (net.Conn, error) {
	if s, ok := c.opts.target.(Spreader); ok {
		return s.DialFrom(ctx, c.place, kind)
	}
	return c.opts.target.Dial(ctx, kind)
}

func (c *client) fullJID() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.full
}

func (c *client) tlsConfig(alpn ...string) *tls.Config {
	cfg := c.opts.tls.Clone()
	if cfg.ServerName == "" {
		cfg.ServerName = c.opts.target.Domain()
	}
	cfg.NextProtos = alpn
	return cfg
}

func (c *client) start(conn net.Conn, ws bool) {
	l := &link{conn: conn, ws: ws, items: make(chan item, queueLength), done: make(chan struct{}), ended: make(chan struct{})}
	c.link = l
	go func() {
		defer close(l.ended)
		defer close(l.items)
		c.readLoop(l)
	}()
}

// startTLS takes over the connection after <proceed/>, at which the reader has stopped by itself.
func (c *client) startTLS(ctx context.Context) error {
	l := c.link
	if l == nil {
		return errNotConnected
	}
	if _, ok := l.conn.(*tls.Conn); ok {
		return errors.New("the connection has TLS already")
	}
	select {
	case _, more := <-l.items:
		if more {
			return errors.New("the server sent more after <proceed/> (RFC 6120 §5.4.3.3)")
		}
	case <-ctx.Done():
		return errors.New("starttls before <proceed/> has come")
	}
	<-l.ended
	secure := tls.Client(l.conn, c.tlsConfig())
	if err := secure.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("STARTTLS: %w", err)
	}
	c.start(secure, false)
	return nil
}

// readLoop turns bytes into items until the connection ends or <proceed/> hands it to TLS.
func (c *client) readLoop(l *link) {
	next := c.streamReader(l)
	for {
		it, err := next()
		switch {
		case errors.Is(err, errBadXML):
			it = item{kind: itemBad, err: err}
		case err != nil:
			if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
				err = nil
			}
			it = item{kind: itemEnd, err: err}
		}
		if it.kind == itemElement && it.node.name.space == nsClient && it.node.prefix != "" {
			it = item{kind: itemBad, err: fmt.Errorf("%w: prefix %q on <%s> (RFC 6120 §4.8.5)", errBadXML, it.node.prefix, it.node.name.local)}
		}
		c.opts.trace(c.name, "←", it.String())
		if it.node != nil && c.observe(it.node) {
			continue
		}
		select {
		case l.items <- it:
		case <-l.done:
			return
		}
		if it.kind == itemEnd || it.kind == itemBad || it.kind == itemElement && it.node.is(nsTLS, "proceed") {
			return
		}
	}
}

// streamReader reads from a byte stream, or message by message.
func (c *client) streamReader(l *link) func() (item, error) {
	if mr, ok := l.conn.(messageReader); ok && l.ws {
		return func() (item, error) {
			msg, err := mr.ReadMessage()
			if err != nil {
				return item{}, err
			}
			return framed(msg)
		}
	}
	return newDecoder(l.conn, l.ws).next
}

// framed reads the one element a WebSocket message holds (RFC 7395 §3.3.3). Its prefixes are its own: nothing is predeclared.
func framed(msg []byte) (item, error) {
	if len(msg) == 0 || msg[0] != '<' {
		return item{}, fmt.Errorf("%w: a message that does not begin with '<' (RFC 7395 §3.3.3)", errBadXML)
	}
	d := newDecoder(bytes.NewReader(msg), true)
	it, err := d.next()
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return it, fmt.Errorf("%w: a message with less than one element (RFC 7395 §3.3.3)", errBadXML)
	}
	if err != nil {
		return it, err
	}
	if _, err := d.next(); !errors.Is(err, io.EOF) {
		return it, fmt.Errorf("%w: a message with more than one element (RFC 7395 §3.3.3)", errBadXML)
	}
	return it, nil
}

var errNotConnected = errors.New("not connected")

// send writes XML of whole elements and counts its stanzas. On a WebSocket every element is a message of its own.
func (c *client) send(text string) error {
	nodes, err := parseNodes(text, false)
	if err != nil {
		return err
	}
	if c.link == nil {
		return errNotConnected
	}
	c.mu.Lock()
	for _, n := range nodes {
		c.sm.sending(n)
	}
	c.mu.Unlock()
	for _, n := range nodes {
		c.asks(n)
	}
	c.dirty = true
	if !c.link.ws {
		return c.write(text)
	}
	for _, n := range nodes {
		if err := c.write(framedText(n)); err != nil {
			return err
		}
	}
	return nil
}

// framedText writes an element as RFC 7395 §3.3.3 asks: complete, its namespaces declared on itself.
func framedText(n *node) string {
	var b strings.Builder
	n.write(&b, "")
	text := b.String()
	if strings.Contains(text, "<stream:") {
		tag := text[:strings.IndexAny(text, " />")]
		text = tag + " xmlns:stream='" + nsStream + "'" + text[len(tag):]
	}
	return text
}

// write sends bytes as they are.
func (c *client) write(text string) error {
	l := c.link
	if l == nil {
		return errNotConnected
	}
	c.opts.trace(c.name, "→", text)
	l.wmu.Lock()
	defer l.wmu.Unlock()
	if err := l.conn.SetWriteDeadline(time.Now().Add(c.opts.timeout)); err != nil {
		return err
	}
	_, err := io.WriteString(l.conn, text)
	return err
}

// next takes the next item, waiting until ctx ends.
func (c *client) next(ctx context.Context) (item, error) {
	if len(c.held) > 0 {
		it := c.held[0]
		c.held = c.held[1:]
		return it, nil
	}
	if c.link == nil {
		return item{}, errNotConnected
	}
	select {
	case it, ok := <-c.link.items:
		if !ok {
			return item{}, errors.New("nothing more: the connection has ended")
		}
		return it, nil
	default:
	}
	select {
	case it, ok := <-c.link.items:
		if !ok {
			return item{}, errors.New("nothing more: the connection has ended")
		}
		return it, nil
	case <-ctx.Done():
		return item{}, fmt.Errorf("nothing came within %v", c.opts.timeout)
	}
}

// unread empties the queue without waiting: what a report shows as left over.
func (c *client) unread() []item {
	out := c.held
	for c.link != nil {
		select {
		case it, ok := <-c.link.items:
			if !ok {
				return out
			}
			out = append(out, it)
		default:
			return out
		}
	}
	return out
}

// await takes items until one satisfies want; the others stay in the queue in their order, unless discard.
func (c *client) await(ctx context.Context, discard bool, want func(item) bool) (item, error) {
	var passed []item
	defer func() {
		if !discard {
			c.held = append(passed, c.held...)
		}
	}()
	for {
		it, err := c.next(ctx)
		if err != nil || want(it) {
			return it, err
		}
		passed = append(passed, it)
		if it.kind == itemEnd || it.kind == itemBad {
			return it, fmt.Errorf("%s", it)
		}
	}
}

// drop closes the socket without any farewell and waits for the reader.
func (c *client) drop() {
	l := c.link
	if l == nil {
		return
	}
	l.closed.Do(func() {
		close(l.done)
		conn := l.conn
		if t, ok := conn.(*tls.Conn); ok {
			conn = t.NetConn() // no close_notify: the peer just vanishes
		}
		conn.Close()
	})
	<-l.ended
	c.link = nil
}

// close ends the stream as RFC 6120 §4.4 says and waits for the server's end of it. What comes before that is discarded.
func (c *client) close(ctx context.Context) error {
	if c.link == nil {
		return errNotConnected
	}
	if err := c.farewell(); err != nil {
		return err
	}
	_, err := c.await(ctx, true, isClose)
	c.drop()
	if err != nil {
		return fmt.Errorf("close: the server did not close its stream: %w", err)
	}
	return nil
}

func isClose(it item) bool {
	return it.kind == itemClose || it.kind == itemElement && it.node.is(nsFraming, "close")
}

func (c *client) farewell() error {
	if c.link.ws {
		return c.write("<close xmlns='" + nsFraming + "'/>") // RFC 7395 §3.6
	}
	return c.write("</stream:stream>")
}
