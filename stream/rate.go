package stream

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
)

// A flood is slowed down first and closed later (reliability row 4). What a
// stream may send is bounded three times: for itself, for all streams of its
// account, for all streams from its address. It waits for the slowest of them,
// before it is read on: the peer's own loss.

// breather is for how long a client must not have been slowed down to be
// patient with it anew.
const breather = time.Second

// pace is how fast somebody may send; a nil bucket is no bound.
type pace struct{ bytes, stanzas *rate.Limiter }

// pace returns n times what one session may send; nil: no bound.
func (r Rate) pace(n int) *pace {
	p := &pace{}
	if r.Bytes > 0 {
		p.bytes = rate.NewLimiter(rate.Limit(int(r.Bytes)*n), int(r.Bytes)*n*r.Burst)
	}
	if r.Stanzas > 0 {
		p.stanzas = rate.NewLimiter(rate.Limit(r.Stanzas*n), r.Stanzas*n*r.Burst)
	}
	if n <= 0 || *p == (pace{}) {
		return nil
	}
	return p
}

// spend returns how long whoever has sent that must wait.
func (p *pace) spend(now time.Time, bytes, stanzas int) time.Duration {
	return max(spend(p.bytes, now, bytes), spend(p.stanzas, now, stanzas))
}

func spend(l *rate.Limiter, now time.Time, n int) (wait time.Duration) {
	if l == nil {
		return 0
	}
	for n > 0 { // what is more than one burst is several
		some := min(n, l.Burst())
		wait = l.ReserveN(now, some).DelayFrom(now)
		n -= some
	}
	return wait
}

// limiter slows down the reading of one stream; nil: nothing does. It belongs
// to the reader.
type limiter struct {
	clock    plugins.Clock
	patience time.Duration
	paces    []*pace
	since    time.Time // when it began to be slowed down
	last     time.Time // when it last was
	release  func()
}

// wait delays the reader. The error ends a stream that nothing slows down.
func (l *limiter) wait(ctx context.Context, bytes, stanzas int) error {
	if l == nil {
		return nil
	}
	now := l.clock.Now()
	var delay time.Duration
	for _, p := range l.paces {
		delay = max(delay, p.spend(now, bytes, stanzas))
	}
	if delay <= 0 {
		return nil
	}
	if now.Sub(l.last) > breather {
		l.since = now
	}
	sleep(ctx, delay)
	l.last = l.clock.Now()
	if l.patience > 0 && l.last.Sub(l.since) > l.patience {
		return &stanza.StreamError{Condition: stanza.StreamPolicyViolation, Text: "you send faster than you may, and have for too long"}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (l *limiter) end() {
	if l != nil {
		l.release()
	}
}

// party is who shares a pace: an account or an address.
type party struct {
	account jid.JID
	origin  netip.Prefix
}

// paces are those that streams share. One stays until it has surely recovered
// from its last stream, so that a new connection is no new allowance. A timer
// that waits for that holds them, so they are no part of the Server.
type paces struct {
	mu  sync.Mutex
	all map[party]*shared
}

type shared struct {
	*pace
	streams int
	left    int // counts departures, so that only the last one's timer removes it
}

// limiter is for a stream of the account from the origin (invalid: one that is
// not counted).
func (s *paces) limiter(r Rate, clock plugins.Clock, account jid.JID, origin netip.Prefix) *limiter {
	own := r.pace(1)
	if own == nil {
		return nil
	}
	l := &limiter{clock: clock, patience: r.Patience, paces: []*pace{own}}
	var parties []party
	join := func(k party, times int) {
		if p := s.join(k, r.pace(times)); p != nil {
			l.paces, parties = append(l.paces, p), append(parties, k)
		}
	}
	join(party{account: account}, r.Account)
	if origin.IsValid() {
		join(party{origin: origin}, r.Address)
	}
	l.release = func() {
		for _, k := range parties {
			s.leave(k, time.Duration(r.Burst)*time.Second, clock)
		}
	}
	return l
}

func (s *paces) join(k party, fresh *pace) *pace {
	if fresh == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[party]*shared{}
	}
	p := s.all[k]
	if p == nil {
		p = &shared{pace: fresh}
		s.all[k] = p
	}
	p.streams++
	return p.pace
}

func (s *paces) leave(k party, recovery time.Duration, clock plugins.Clock) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.all[k]
	if p.streams--; p.streams > 0 {
		return
	}
	p.left++
	departure := p.left
	clock.AfterFunc(recovery, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if p.streams == 0 && p.left == departure {
			delete(s.all, k)
		}
	})
}
