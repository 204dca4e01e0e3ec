package stream

import (
	"context"
	"time"

	"parley/parser/jid"
	"parley/router/channel"
)

// chains is how far a session has come in what features tell it of which it must have
// everything, in order (channel.Link): rooms. The zero value has a part in none.
type chains struct {
	at     map[jid.JID]*chain
	unsure time.Time // the session was another process's, of whose chains this one knows nothing: what was handed over before then its client has; zero: it began here
}

type chain struct {
	at    int64     // 0: the session does not know that it has a part in it
	asked time.Time // when the feature was last told of a gap that is still open
}

const (
	// maxChains bounds what a session remembers. Of further chains it takes everything as
	// it comes.
	maxChains = 4096
	// askAgain is how long after a gap was told of it is told again, when something comes
	// and it is still there.
	askAgain = 3 * time.Second
)

// unheard is how long a client may not have got what it was sent, and its session
// still has the connection (check).
func (s *Server) unheard() time.Duration {
	return s.cfg.Resumption.RequestGap + 2*requestAfter + watchMost
}

// follow reports whether the link is the next that the session gets of its chain. What
// is not it has already, or it comes again behind what the session has missed. s.mu is
// held.
func (s *Session) follow(l *channel.Link) (next bool) {
	c := s.chains.at[l.Chain]
	switch {
	case l.End:
		delete(s.chains.at, l.Chain)
		return true
	case c == nil && len(s.chains.at) >= maxChains:
		return true
	case c == nil:
		if s.chains.at == nil {
			s.chains.at = map[jid.JID]*chain{}
		}
		c = &chain{}
		s.chains.at[l.Chain] = c
	}
	switch {
	case l.Start:
		*c = chain{at: l.At}
		return true
	case s.sm != nil && s.sm.before != nil: // it says what its client has missed when that comes
		return false
	case c.at == 0 || l.After > c.at:
		s.missed(c, l)
		return false
	case l.Check || l.At <= c.at:
		return false
	}
	*c = chain{at: l.At}
	return true
}

// heard is how far a client has come for each part that it may have of what it has not
// acknowledged.
func (c *chains) heard(queues ...[]delivery) (out []Heard) {
	first := make(map[jid.JID]int64, len(c.at))
	n := 0
	for _, q := range queues {
		for _, d := range q {
			n++
			if l := d.link; l != nil && !l.End {
				if _, known := first[l.Chain]; !known {
					first[l.Chain] = l.After
				}
				out = append(out, Heard{l.Chain.String(), n, l.At})
			}
		}
	}
	for of, chain := range c.at {
		at, waits := first[of]
		if !waits {
			at = chain.at
		}
		if at > 0 {
			out = append(out, Heard{of.String(), 0, at})
		}
	}
	return out
}

// regain makes what the client has heard known, when it is found out how many stanzas
// it has.
func (c *chains) regain(b *Outbound, has uint64) {
	for _, h := range b.Heard {
		of, err := jid.Parse(h.Chain)
		if err != nil || b.Acked == unknown || uint64(h.Nth) > has-b.Acked {
			continue
		}
		if c.at == nil {
			c.at = map[jid.JID]*chain{}
		}
		if c.at[of] == nil && len(c.at) < maxChains {
			c.at[of] = &chain{}
		}
		if known := c.at[of]; known != nil {
			known.at = max(known.at, h.At)
		}
	}
}

// missed tells the feature of a gap before the link; s.mu is held.
func (s *Session) missed(c *chain, l *channel.Link) {
	now := s.srv.env.Clock.Now()
	if now.Sub(c.asked) < askAgain {
		return
	}
	c.asked = now
	g := channel.Gap{Chain: l.Chain, After: c.at, At: l.At}
	if c.at == 0 {
		if g.Stranger = s.chains.unsure.IsZero(); !g.Stranger {
			g.Since = s.chains.unsure.UnixMicro()
		}
	}
	s.srv.metrics.gaps.Inc()
	e := &channel.Envelope{Kind: channel.Note, Session: s.ref, Reason: l.Feature, Raw: g.Encode()}
	s.srv.later(func(ctx context.Context) {
		if err := s.srv.send(ctx, e); err != nil {
			s.srv.unsent("a gap is not told of", err, "jid", s.ref.JID.String(), "chain", l.Chain.String())
		}
	})
}
