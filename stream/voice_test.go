package stream

import (
	"context"
	"strings"
	"testing"

	"parley/parser/stanza"
)

// hasty is a client's profile whose stream somebody closes while its header is
// answered.
type hasty struct {
	clientProfile
	close func(*Conn)
}

func (h hasty) Header(ctx context.Context, c *Conn, el *stanza.Element) error {
	h.close(c)
	return h.clientProfile.Header(ctx, c, el)
}

// A stream that somebody else closes while its reader answers has one header
// and one end, and nothing behind that (RFC 6120 §4.4, §4.9.1.2).
func TestClosedWhileItsHeaderIsAnswered(t *testing.T) {
	h := newHouse(t, nil)
	p := newPipe()
	c := newConn(h.Server, p, hasty{close: func(c *Conn) {
		done := make(chan struct{})
		go func() {
			c.abort(&stanza.StreamError{Condition: stanza.StreamResourceConstraint})
			close(done)
		}()
		<-done
	}})
	c.phase = Secured
	el := stanza.El(stanza.NSStream, "stream").With("to", "localhost").With("version", "1.0").With("from", "romeo@localhost")
	if err := c.header(context.Background(), el); err != nil {
		t.Fatal(err)
	}
	out := p.read()
	if n := strings.Count(out, "<stream:stream"); n != 1 || !strings.HasSuffix(out, "</stream:stream>") {
		t.Errorf("%d headers: %s", n, out)
	}
}

// For the race detector: the fields that our header is made of are the
// reader's, and closing reads them.
func TestCloseAndHeaderDoNotRace(t *testing.T) {
	h := newHouse(t, nil)
	for range 20 {
		c := newConn(h.Server, newPipe(), clientProfile{})
		c.phase = Secured
		done := make(chan struct{})
		go func() {
			c.abort(&stanza.StreamError{Condition: stanza.StreamSystemShutdown})
			close(done)
		}()
		_ = c.header(context.Background(), stanza.El(stanza.NSStream, "stream").With("to", "localhost").With("version", "1.0").With("from", "romeo@localhost"))
		<-done
	}
}

// blocker is a component with an element that takes until it is released.
type blocker struct{ entered, release chan struct{} }

func (blocker) Start(context.Context) error { return nil }
func (blocker) Stop(context.Context) error  { return nil }
func (b blocker) Register(r *Registrar) {
	r.StreamFeature(Feature{In: Authenticated, Elements: map[stanza.Name]ElementHandler{
		{Space: "urn:test", Local: "block"}: func(context.Context, *Conn, *stanza.Element) error {
			close(b.entered)
			<-b.release
			return nil
		},
	}})
}

// Nobody is told that a component is out of work while its handler runs, also
// at the second try (plugins.Server).
func TestDetachDrains(t *testing.T) {
	h := newHouse(t, nil)
	b := blocker{make(chan struct{}), make(chan struct{})}
	detach, err := h.Attach("blocker", b)
	if err != nil {
		t.Fatal(err)
	}
	c, _ := h.login()
	handled := make(chan error, 1)
	go func() { handled <- say(c, "<block xmlns='urn:test'/>") }()
	<-b.entered
	over, cancel := context.WithCancel(context.Background())
	cancel()
	for i := range 2 {
		if detach(over) == nil {
			t.Errorf("try %d: detached while its handler runs", i+1)
		}
	}
	close(b.release)
	if err := <-handled; err != nil {
		t.Error(err)
	}
	if err := detach(context.Background()); err != nil {
		t.Error(err)
	}
}
