package stream

// How a stream ends: with an error of ours or of the peer's, or in peace; and
// what its connection leaves behind.

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"time"

	"parley/parser/stanza"
)

// errEnd says that both ends of the stream are closed.
var errEnd = errors.New("stream ended")

// maxFarewell is what a peer may send after our end is closed, in bytes.
const maxFarewell = 1 << 20

// readFailed is the end that the transport tells of.
func (c *Conn) readFailed(err error) {
	var se *stanza.StreamError
	switch {
	case c.closing.Load():
		return
	case errors.As(err, &se): // the transport saw what no stream may carry
		c.fail(se)
		return
	case errors.Is(err, os.ErrDeadlineExceeded) && c.session.survives():
		return // a network that went away in the middle of an element
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.fail(&stanza.StreamError{Condition: stanza.StreamConnectionTimeout})
		return
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		c.log.Debug("read failed", "err", err)
	}
}

// fail ends the stream with an error (RFC 6120 §4.9); the reader calls it.
func (c *Conn) fail(err error) {
	var se *stanza.StreamError
	if !errors.As(err, &se) {
		c.log.Error("stream failed", "err", err)
		se = &stanza.StreamError{Condition: stanza.StreamInternalServerError}
	}
	c.abort(se)
}

// abort ends the stream with an error; any goroutine may call it. The reader
// goes on until the peer closes its end or the time for that is over.
func (c *Conn) abort(se *stanza.StreamError) {
	c.closeOnce.Do(func() {
		c.voice.Lock()
		defer c.voice.Unlock()
		c.pausing.Store(se.Condition == stanza.StreamSystemShutdown)
		c.closing.Store(true)
		c.log.Debug("stream closed with an error", "condition", string(se.Condition), "text", se.Text)
		c.srv.metrics.streamErrors.WithLabelValues(string(se.Condition)).Inc()
		if !c.opened { // RFC 6120 §4.9.1.2: our header comes first all the same
			c.open(c.authority())
		}
		c.tr.Queue(c.streamElement(se.Element()))
		c.sayClose()
	})
}

// answered waits until everything that the peer sent before it closed its end
// is done, so that the answers still reach it (RFC 6120 §4.4). On a local road
// it is done already.
func (c *Conn) answered(ctx context.Context) {
	if c.session == nil {
		return
	}
	limit := time.NewTimer(c.srv.cfg.Timeouts.Close)
	defer limit.Stop()
	waitFor(ctx, limit, c.session.settled())
}

// goodbye closes our end of the stream (RFC 6120 §4.4).
func (c *Conn) goodbye() {
	c.closeOnce.Do(func() {
		c.voice.Lock()
		defer c.voice.Unlock()
		c.closing.Store(true)
		c.sayClose()
	})
}

func (c *Conn) sayClose() {
	if c.tr.Framed() {
		c.tr.Queue(stanza.El(stanza.NSFraming, "close").Bytes(""))
	} else {
		c.tr.Queue([]byte("</stream:stream>"))
	}
	c.tr.Flush()
	c.tr.SetReadDeadline(time.Now().Add(c.srv.cfg.Timeouts.Close))
}

// authority is a domain of ours, never one the peer made up (RFC 6120
// §4.9.1.3).
func (c *Conn) authority() string {
	if c.domain != "" {
		return c.domain
	}
	if own := c.srv.env.Domains.List(); len(own) > 0 {
		return own[0]
	}
	return ""
}

// detach tells the session that this was its connection; once.
func (c *Conn) detach(ctx context.Context) {
	if c.detached {
		return
	}
	c.detached = true
	close(c.left)
	if s := c.session; s != nil {
		s.lost(context.WithoutCancel(ctx), c)
	}
}

// end takes the stream down after the reader has left.
func (c *Conn) end(ctx context.Context) {
	c.detach(ctx)
	if t, ok := c.tr.(watchable); ok {
		t.Release(c.srv.cfg.Timeouts.Close)
	} else {
		c.tr.Close(c.srv.cfg.Timeouts.Close)
	}
	c.limiter.end()
	c.srv.conns.remove(c)
	c.srv.metrics.connections.Dec()
	switch p := c.profile.(type) {
	case Initiator:
		p.Ended()
	case Leaver:
		p.Left()
	}
	c.log.Debug("disconnected", "account", c.account.String()) // jid is what it was bound as
}
