package stream

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"parley/parser/stanza"
	"parley/plugins"
)

// When a door cannot accept it says so once in acceptGap, and tries ten times a
// second (reliability row 35).
const (
	acceptGap    = time.Minute
	acceptBreath = 100 * time.Millisecond
)

// Accept gives f every connection until the listener is closed. When there is
// no descriptor left, those who come are refused with a reason.
func Accept(ctx context.Context, l net.Listener, clock plugins.Clock, log *slog.Logger, refuse, f func(net.Conn)) {
	reserve := plugins.NewReserve()
	defer reserve.Close()
	var told time.Time
	for {
		c, last, err := reserve.Accept(l)
		if err == nil && !last {
			f(c)
			continue
		}
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			if c != nil {
				_ = c.Close()
			}
			return
		}
		if now := clock.Now(); now.Sub(told) >= acceptGap {
			log.Warn("accept failed; trying again until it works", "err", err, "descriptors", !last)
			told = now
		}
		if last {
			refuse(c)
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(acceptBreath): // others may end
		}
	}
}

func noRoom(text string) *stanza.StreamError {
	return &stanza.StreamError{Condition: stanza.StreamResourceConstraint, Text: text}
}

// turnAway tells a client why it is not let in, and waits a moment for
// it to have read that: closing at once would take back what it has not.
func (s *Server) turnAway(t Transport, p Profile, why *stanza.StreamError) {
	c := newConn(s, t, p)
	c.abort(why)
	t.SetReadDeadline(time.Now().Add(acceptBreath))
	c.farewell = true
	c.pump(context.Background())
	t.Close(0)
}

// refuse is for connections that are accepted on the reserve.
func (s *Server) refuse(direct bool) func(net.Conn) {
	return func(c net.Conn) {
		s.metrics.refused.WithLabelValues("descriptors").Inc()
		if direct { // no TLS, no words
			_ = c.Close()
			return
		}
		s.turnAway(NewTCP(c), clientProfile{}, noRoom("the server has no room for another connection"))
	}
}
