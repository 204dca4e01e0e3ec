package stream

import (
	"cmp"
	"context"
	"runtime"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"slices"
	"sync/atomic"
	"time"

	"parley/parser/stanza"
)

// When memory is short (reliability row 34), what costs least goes first:
//
//  1. new connections are refused;
//  2. sessions without a connection end, the fullest first: what they had not
//     taken is stored, as far as it was ever promised;
//  3. sessions whose clients do not read end, the fullest first.
//
// Short means: of what the runtime may use (GOMEMLIMIT), so much is alive.
const (
	refuseAt  = 0.80
	endAwayAt = 0.85
	endSlowAt = 0.90
	shedLeast = 16 << 10 // bytes that a session must hold, or its client not have read, for its end to help
	shedOwed  = 1 << 20  // bytes that a client has not acknowledged, though the network has taken them: it does not read
	shedAgain = time.Second
)

// shedder looks at the memory after each garbage collection, when it is known
// what is alive.
type shedder struct {
	usage func() (alive, limit int64)
	short atomic.Bool // new connections are refused
	bell  chan struct{}
}

func newShedder() *shedder {
	return &shedder{usage: memoryInUse, bell: make(chan struct{}, 1)}
}

// memoryInUse is what lived through the last collection, with stacks, and the
// limit.
func memoryInUse() (alive, limit int64) {
	s := []runtimemetrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	runtimemetrics.Read(s)
	return int64(s[0].Value.Uint64() + s[1].Value.Uint64()), debug.SetMemoryLimit(-1)
}

// listen rings the bell at the end of each collection, until the first that
// comes after ctx is done.
func (m *shedder) listen(ctx context.Context) {
	runtime.AddCleanup(&struct{ p *shedder }{m}, func(m *shedder) {
		if ctx.Err() != nil {
			return
		}
		select {
		case m.bell <- struct{}{}:
		default:
		}
		m.listen(ctx)
	}, m)
}

// watchMemory sheds until ctx is done.
func (s *Server) watchMemory(ctx context.Context) {
	s.shed.listen(ctx)
	again := time.NewTimer(shedAgain)
	again.Stop()
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.shed.bell:
		case <-again.C: // short: whether that is over is known after a collection only
			runtime.GC()
		}
		if s.relieve(ctx) {
			again.Reset(shedAgain)
		} else {
			again.Stop()
		}
	}
}

// relieve does what the use of memory calls for and reports whether it is short.
func (s *Server) relieve(ctx context.Context) (short bool) {
	alive, limit := s.shed.usage()
	used := float64(alive) / float64(limit) // without a limit it is one nobody reaches
	short = used >= refuseAt
	if s.shed.short.Swap(short) != short {
		if short {
			s.log.Warn("memory is short: new connections are refused", "alive", alive, "limit", limit)
		} else {
			s.log.Info("memory is no longer short", "alive", alive, "limit", limit)
		}
	}
	if used < endAwayAt {
		return short
	}
	excess := alive - int64(refuseAt*float64(limit))
	away, slow := s.fullest()
	excess = s.endFullest(ctx, away, excess, "away")
	if used >= endSlowAt {
		s.endFullest(ctx, slow, excess, "slow")
	}
	return short
}

// holder is a session with what it holds in memory.
type holder struct {
	session *Session
	bytes   int64
}

// fullest returns the sessions that hold most, without a connection and with a
// client that does not read: one that does may owe acknowledgements, of a little.
func (s *Server) fullest() (away, slow []holder) {
	s.sessions.each(func(sess *Session) {
		n, unread, connected := sess.buffered()
		switch {
		case connected && (unread >= shedLeast || n >= shedOwed):
			slow = append(slow, holder{sess, n})
		case !connected && n >= shedLeast:
			away = append(away, holder{sess, n})
		}
	})
	for _, l := range [][]holder{away, slow} {
		slices.SortFunc(l, func(a, b holder) int { return cmp.Compare(b.bytes, a.bytes) })
	}
	return away, slow
}

// endFullest ends sessions until they have held excess bytes, and returns what
// of it is left.
func (s *Server) endFullest(ctx context.Context, list []holder, excess int64, which string) int64 {
	ended := 0
	for _, h := range list {
		if excess <= 0 {
			break
		}
		h.session.drop(context.WithoutCancel(ctx), &stanza.StreamError{Condition: stanza.StreamResourceConstraint, Text: "the server is short of memory"})
		s.metrics.shed.WithLabelValues(which).Inc()
		excess -= h.bytes
		ended++
	}
	if ended > 0 {
		s.log.Warn("memory is short: sessions ended", "which", which, "sessions", ended)
	}
	return excess
}

// drop ends the session without waiting for its client to read why.
func (s *Session) drop(ctx context.Context, se *stanza.StreamError) {
	s.mu.Lock()
	c := s.conn
	s.mu.Unlock()
	s.evict(ctx, se)
	if c != nil {
		c.tr.Close(0)
	}
}

// buffered is what the session holds for its client, in bytes: what the socket
// has not taken (unread), what is not acknowledged, what waits until it is open.
func (s *Session) buffered() (n, unread int64, connected bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		unread = int64(s.conn.tr.Pending())
	}
	n = unread
	if s.sm != nil {
		n += int64(s.sm.size)
	}
	for _, d := range s.early {
		n += int64(d.bytes())
	}
	return n, unread, s.conn != nil
}

// held is what all sessions hold.
func (s *Server) held() (sum float64) {
	s.sessions.each(func(sess *Session) {
		n, _, _ := sess.buffered()
		sum += float64(n)
	})
	return sum
}
