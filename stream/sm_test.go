package stream

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/router/channel"
	"parley/router/sessions"
)

// pipe is a Transport in memory.
type pipe struct {
	mu      sync.Mutex
	out     bytes.Buffer
	stuck   bool // the peer does not read
	waiting int
	closed  bool
	drained func()
	in      chan []byte
}

func newPipe() *pipe { return &pipe{in: make(chan []byte, 16)} }

func (p *pipe) Fill() ([]byte, error) {
	b, ok := <-p.in
	if !ok {
		return nil, io.EOF
	}
	return b, nil
}

func (p *pipe) Queue(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.out.Write(b)
	p.waiting += len(b)
}

func (p *pipe) Flush() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.stuck {
		p.waiting = 0
	}
	return p.waiting
}

func (p *pipe) Pending() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting
}

func (p *pipe) OnDrained(f func()) { p.drained = f }

func (p *pipe) Close(time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.closed = true
		close(p.in)
	}
}

// read returns what was written since the last read.
func (p *pipe) read() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.out.String()
	p.out.Reset()
	return s
}

func (p *pipe) SetReadDeadline(time.Time)                 {}
func (p *pipe) RemoteAddr() net.Addr                      { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
func (p *pipe) Framed() bool                              { return false }
func (p *pipe) Name() string                              { return "test" }
func (p *pipe) TLS() *tls.ConnectionState                 { return nil }
func (p *pipe) StartTLS(*tls.Config, time.Duration) error { return ErrNoUpgrade }

// house records what the streamer sends down the road and answers Bind.
type house struct {
	*Server
	mu    sync.Mutex
	got   []*channel.Envelope
	clock *fakeClock
	hold  bool // Handled does not come back
}

func (h *house) Send(ctx context.Context, batch []*channel.Envelope) error {
	var back []*channel.Envelope
	h.mu.Lock()
	for _, e := range batch {
		c := *e
		h.got = append(h.got, &c)
		switch {
		case e.Kind == channel.Bind:
			back = append(back, &channel.Envelope{Kind: channel.Handled, Session: e.Session})
		case e.Kind == channel.Stanza && !h.hold:
			back = append(back, &channel.Envelope{Kind: channel.Handled, Session: e.Session, Seq: e.Seq})
		}
	}
	h.mu.Unlock()
	return h.deliver(ctx, back)
}

// sent returns the envelopes of a kind so far.
func (h *house) sent(k channel.Kind) (out []*channel.Envelope) {
	h.errands.wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.got {
		if e.Kind == k {
			out = append(out, e)
		}
	}
	return out
}

// fakeClock stands still; the tests here call check themselves.
type fakeClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) AfterFunc(time.Duration, func()) func() bool { return func() bool { return true } }

func (c *fakeClock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func newHouse(t *testing.T, change func(*Config)) *house {
	t.Helper()
	cfg := *defaults()
	cfg.Outbox, cfg.Resumption.Unacked = 4096, 20
	if change != nil {
		change(&cfg)
	}
	m, err := newMetrics(prometheus.NewRegistry(), func() float64 { return 0 })
	if err != nil {
		t.Fatal(err)
	}
	h := &house{clock: &fakeClock{now: time.Unix(1_700_000_000, 0)}}
	env := plugins.Env{Node: "n", Domains: plugins.NewDomains("localhost"), Clock: h.clock, Log: slog.New(slog.DiscardHandler), Sessions: sessions.NewRegistry()}
	h.Server = &Server{env: env, cfg: cfg, paces: &paces{}, log: env.Log, metrics: m, jids: jid.NewCache(16), shed: newShedder(),
		links: plugins.Links{Out: func(string) channel.MessageChannel { return h }}}
	h.acks.wake = make(chan struct{}, 1)
	h.table.Store(newTable(nil))
	return h
}

// login makes a connection that has logged in as romeo but is not bound.
func (h *house) login() (*Conn, *pipe) {
	p := newPipe()
	c := newConn(h.Server, p, clientProfile{})
	c.account, c.domain, c.phase, c.opened = jid.MustParse("romeo@localhost"), "localhost", Authenticated, true
	return c, p
}

// bound is a connection with a session.
func (h *house) bound(t *testing.T, resource string) (*Conn, *pipe) {
	t.Helper()
	c, p := h.login()
	if _, err := c.Bind(context.Background(), resource, sessions.State{}); err != nil {
		t.Fatal(err)
	}
	c.session.open()
	p.read()
	return c, p
}

// say hands the connection one first-level element, as its reader would.
func say(c *Conn, xml string) error {
	el, err := stanza.ParseElement([]byte(xml), stanza.NSClient)
	if err != nil {
		return err
	}
	return c.token(context.Background(), stanza.Token{Kind: stanza.Item, Name: el.Name, Raw: []byte(xml)})
}

func mustSay(t *testing.T, c *Conn, xml string) {
	t.Helper()
	if err := say(c, xml); err != nil {
		t.Fatalf("%s: %v", xml, err)
	}
	c.sendBatch(context.Background())
}

// send delivers one stanza to the session.
func (h *house) send1(s *Session, e channel.Envelope) {
	e.Kind, e.To = channel.Deliver, []sessions.Ref{s.ref}
	_ = h.deliver(context.Background(), []*channel.Envelope{&e})
}

func (h *house) message(s *Session, id string) {
	h.send1(s, channel.Envelope{Raw: []byte("<message id='" + id + "'/>")})
}

func want(t *testing.T, got, exp string) {
	t.Helper()
	if got != exp {
		t.Fatalf("got  %s\nwant %s", got, exp)
	}
}

const (
	smR       = "<r xmlns='urn:xmpp:sm:3'/>"
	smEnabled = "<enabled xmlns='urn:xmpp:sm:3'/>"
)

func enable(t *testing.T, c *Conn, p *pipe) (id string) {
	t.Helper()
	mustSay(t, c, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
	got := p.read()
	_, rest, ok := strings.Cut(got, "id='")
	if !ok {
		t.Fatalf("no id in %s", got)
	}
	id, _, _ = strings.Cut(rest, "'")
	return id
}

func streamError(t *testing.T, err error, c stanza.StreamCondition) *stanza.StreamError {
	t.Helper()
	se, ok := err.(*stanza.StreamError)
	if !ok || se.Condition != c {
		t.Fatalf("got %v, want the stream error %s", err, c)
	}
	return se
}

// XEP-0198 §3: not before binding, and once.
func TestRule57Enable(t *testing.T) {
	h := newHouse(t, nil)
	c, p := h.login()
	mustSay(t, c, "<enable xmlns='urn:xmpp:sm:3'/>")
	want(t, p.read(), "<failed xmlns='urn:xmpp:sm:3'><unexpected-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>")
	c, p = h.bound(t, "a")
	mustSay(t, c, "<enable xmlns='urn:xmpp:sm:3'/>")
	want(t, p.read(), smEnabled)
	streamError(t, say(c, "<enable xmlns='urn:xmpp:sm:3'/>"), stanza.StreamPolicyViolation)
}

// XEP-0198 §4: h counts stanzas from enable on, and wraps at 2^32.
func TestRule57CountWraps(t *testing.T) {
	h := newHouse(t, nil)
	c, p := h.bound(t, "a")
	mustSay(t, c, "<message/>")
	mustSay(t, c, "<enable xmlns='urn:xmpp:sm:3'/>")
	p.read()
	mustSay(t, c, smR)
	want(t, p.read(), "<a xmlns='urn:xmpp:sm:3' h='0'/>")
	mustSay(t, c, "<message/>")
	mustSay(t, c, smR)
	want(t, p.read(), "<a xmlns='urn:xmpp:sm:3' h='1'/>")
	c.session.received.Add(1<<32 - 2)
	mustSay(t, c, "<message/>")
	mustSay(t, c, smR)
	want(t, p.read(), "<a xmlns='urn:xmpp:sm:3' h='0'/>")
}

// Promise D1: h is what is durable; the rest is acknowledged when it is.
func TestAcknowledgesWhatIsDurable(t *testing.T) {
	h := newHouse(t, nil)
	c, p := h.bound(t, "a")
	mustSay(t, c, "<enable xmlns='urn:xmpp:sm:3'/>")
	p.read()
	h.hold = true
	mustSay(t, c, "<message/>")
	mustSay(t, c, "<message/>")
	mustSay(t, c, smR)
	want(t, p.read(), "<a xmlns='urn:xmpp:sm:3' h='0'/>")
	handled := func(seq uint64) {
		_ = h.deliver(context.Background(), []*channel.Envelope{{Kind: channel.Handled, Session: c.session.ref, Seq: seq}})
	}
	handled(1)
	want(t, p.read(), "<a xmlns='urn:xmpp:sm:3' h='1'/>")
	handled(1) // an old one changes nothing
	want(t, p.read(), "")
	handled(2)
	want(t, p.read(), "<a xmlns='urn:xmpp:sm:3' h='2'/>")
	h.hold = false
	mustSay(t, c, "<message/>")
	want(t, p.read(), "") // nobody asked
}

func TestAcknowledgedRows(t *testing.T) {
	h := newHouse(t, nil)
	c, p := h.bound(t, "a")
	enable(t, c, p)
	for i := range 4 {
		h.send1(c.session, channel.Envelope{Raw: fmt.Appendf(nil, "<message id='%d'/>", i), Pending: int64(100 + i)})
	}
	want(t, p.read(), "<message id='0'/>"+smR+"<message id='1'/><message id='2'/><message id='3'/>")
	mustSay(t, c, "<a xmlns='urn:xmpp:sm:3' h='3'/>")
	want(t, fmt.Sprint(h.acks.take()[c.session.ref]), "[100 101 102]")
	want(t, p.read(), smR) // a row is still out
	mustSay(t, c, "<a xmlns='urn:xmpp:sm:3' h='2'/>")
	mustSay(t, c, "<a xmlns='urn:xmpp:sm:3' h='4'/>")
	want(t, fmt.Sprint(h.acks.take()[c.session.ref]), "[103]")
}

// XEP-0198 §6, reliability row 27.
func TestRule57CountTooHigh(t *testing.T) {
	h := newHouse(t, nil)
	for _, given := range []string{"3", "4294967295"} {
		c, p := h.bound(t, "a")
		mustSay(t, c, "<enable xmlns='urn:xmpp:sm:3'/>")
		h.message(c.session, "1")
		h.message(c.session, "2")
		p.read()
		se := streamError(t, say(c, "<a xmlns='urn:xmpp:sm:3' h='"+given+"'/>"), stanza.StreamUndefinedCondition)
		want(t, string(se.App.Bytes("")), "<handled-count-too-high xmlns='urn:xmpp:sm:3' h='"+given+"' send-count='2'/>")
	}
}

func TestPosition(t *testing.T) {
	const lap = 1 << 32
	for _, tc := range []struct {
		acked, sent uint64
		h           uint32
		at          uint64
	}{
		{0, 5, 5, 5},
		{5, 8, 3, 3},
		{0, 5, 1<<32 - 1, lap - 1},
		{lap - 2, lap + 3, 1, lap + 1},
		{lap - 2, lap + 3, 1<<32 - 1, lap - 1},
		{lap + 1, lap + 3, 1<<32 - 1, lap - 1},
		{3*lap + 1, 3*lap + 3, 2, 3*lap + 2},
	} {
		m := management{acked: tc.acked, sent: tc.sent}
		if at := m.position(tc.h); at != tc.at {
			t.Errorf("acked %d sent %d h %d: %d, want %d", tc.acked, tc.sent, tc.h, at, tc.at)
		}
	}
}

// Only with stream management do its other elements mean anything
// (RFC 6120 §4.9.3.24).
func TestRule8AckWithoutEnable(t *testing.T) {
	h := newHouse(t, nil)
	c, _ := h.bound(t, "a")
	streamError(t, say(c, smR), stanza.StreamUnsupportedStanzaType)
	streamError(t, say(c, "<a xmlns='urn:xmpp:sm:3' h='0'/>"), stanza.StreamUnsupportedStanzaType)
}

func TestRequests(t *testing.T) {
	h := newHouse(t, nil)
	c, p := h.bound(t, "a")
	enable(t, c, p)
	for i := range requestEvery {
		h.message(c.session, fmt.Sprint(i))
	}
	if got := p.read(); !strings.HasSuffix(got, smR) || strings.Count(got, smR) != 1 {
		t.Fatal(got)
	}
	mustSay(t, c, "<a xmlns='urn:xmpp:sm:3' h='5'/>")
	h.message(c.session, "x")
	want(t, p.read(), "<message id='x'/>")
	h.clock.add(requestAfter)
	c.session.check(context.Background(), h.clock.Now())
	want(t, p.read(), smR)
	h.clock.add(h.cfg.Resumption.RequestGap)
	c.session.check(context.Background(), h.clock.Now())
	if !p.closed {
		t.Fatal("a client that does not answer keeps its connection")
	}
}
