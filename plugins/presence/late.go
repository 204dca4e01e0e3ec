package presence

import (
	"context"
	"sync"
	"time"

	"parley/parser/jid"
	"parley/router/channel"
	"parley/router/sessions"
)

// Between nodes that do not hear each other for a while a session's end may be told
// late: behind what the next session of its address has shown at another node. What
// is to come from one node comes in order, so the node that has told the end shows
// who has the address now, when it hears of that.

const (
	// lateFor is how long an end may be told late.
	lateFor = 5 * time.Minute
	// maxLate bounds what is remembered; of what is beyond, the oldest is forgotten.
	maxLate = 10_000
)

// lookAgain is when it is looked for who has an address now, after nodes may not have
// heard each other: what they have here is told before long.
func lookAgain() []time.Duration { return []time.Duration{0, time.Second, 5 * time.Second} }

// late are the sessions whose end was told lately.
type late struct {
	mu    sync.Mutex
	ended []end
}

type end struct {
	sessions.Entry // its address, and when it was bound
	at             time.Time
}

func (l *late) add(e *sessions.Entry, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.ended) > 0 && (len(l.ended) >= maxLate || now.Sub(l.ended[0].at) > lateFor) {
		l.ended[0] = end{}
		l.ended = l.ended[1:]
	}
	l.ended = append(l.ended, end{sessions.Entry{Ref: e.Ref, State: sessions.State{BoundAt: e.BoundAt}}, now})
}

// followed takes out those whose address a later session has, elsewhere and seen.
func (l *late) followed(reg *sessions.Registry, here string) (out []*sessions.Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	kept := l.ended[:0]
	for _, e := range l.ended {
		now, ok := reg.Find(e.JID)
		if ok && now.Node != here && now.Available && now.BoundAt.After(e.BoundAt) {
			out = append(out, &e.Entry)
			continue
		}
		kept = append(kept, e)
	}
	clear(l.ended[len(kept):])
	l.ended = kept
	return out
}

// missed is told when nodes may not have heard each other.
func (c *component) missed(key string) {
	if key != "" {
		return
	}
	for _, after := range lookAgain() {
		c.env.Clock.AfterFunc(after, func() {
			for _, e := range c.late.followed(c.env.Sessions, c.env.Node) {
				c.succeeded(context.Background(), e)
			}
		})
	}
}

// moved shows a session that has come from another node to those who came while it
// was on its way: since it was asked for, which is when it counts as bound.
func (c *component) moved(ctx context.Context, s *sessions.Entry, subscribers []jid.JID) {
	if c.env.Notices == nil || s.BoundAt.Before(c.began) { // of before the start: restored
		return
	}
	came := func(to *sessions.Entry) bool { return to.Available && to.PresenceAt.After(s.BoundAt) }
	c.showTo(ctx, s, subscribers, came, "moved")
}

// showTo shows a session to those of its contacts' that pick wants.
func (c *component) showTo(ctx context.Context, s *sessions.Entry, subscribers []jid.JID, pick func(*sessions.Entry) bool, cause string) {
	var out []*channel.Envelope
	for _, contact := range c.audience(ctx, s.JID, subscribers...) {
		for _, to := range c.sessionsOf(contact, pick) {
			out = append(out, c.shownTo(s, to)...)
		}
	}
	c.sent.WithLabelValues(cause).Add(float64(len(out)))
	c.house.Route(ctx, out...)
}
