package presence

import (
	"context"
	"sync"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/processor"
)

// Directed is the contract: who got presence from a session that was not
// broadcast (RFC 6121 §4.6). It forgets a session when that becomes
// unavailable or ends. It is safe for concurrent use.
type Directed struct {
	mu        sync.Mutex // leaf
	bySession map[jid.JID]map[jid.JID]struct{}
}

func newDirected() *Directed {
	return &Directed{bySession: map[jid.JID]map[jid.JID]struct{}{}}
}

// Shows reports whether the session, a full JID, has sent presence to exactly
// this entity and not taken it back.
func (d *Directed) Shows(session, entity jid.JID) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.bySession[session][entity]
	return ok
}

// add reports false when the session shows itself to max others already.
func (d *Directed) add(session, entity jid.JID, max int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	set := d.bySession[session]
	if _, known := set[entity]; known {
		return true
	}
	if len(set) >= max {
		return false
	}
	if set == nil {
		set = map[jid.JID]struct{}{}
		d.bySession[session] = set
	}
	set[entity] = struct{}{}
	return true
}

func (d *Directed) remove(session, entity jid.JID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	set := d.bySession[session]
	delete(set, entity)
	if len(set) == 0 {
		delete(d.bySession, session)
	}
}

// take returns whom the session shows itself to, and forgets them.
func (d *Directed) take(session jid.JID) []jid.JID {
	d.mu.Lock()
	defer d.mu.Unlock()
	set := d.bySession[session]
	delete(d.bySession, session)
	out := make([]jid.JID, 0, len(set))
	for j := range set {
		out = append(out, j)
	}
	return out
}

// direct notes to whom a client sends presence (RFC 6121 §4.6.3). Subscribers
// need no note while the session is available: broadcasts reach them.
func (c *component) direct(ctx context.Context, f *processor.Flow) error {
	if f.Session.Available && f.To.IsBare() {
		state, err := c.rosters.Subscription(ctx, f.Session.JID.Bare(), f.To)
		if err != nil {
			return err
		}
		if state.From() {
			return nil
		}
	}
	if !c.directed.add(f.Session.JID, f.To, c.cfg.Directed) {
		return stanza.NewError(stanza.ResourceConstraint, "presence was sent to too many others")
	}
	return nil
}
