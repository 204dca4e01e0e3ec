package commands

import (
	"container/list"
	"crypto/rand"
	"sync"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/command"
	"parley/plugins"
	"parley/router/sessions"
)

// session is a command that waits for its next step.
type session struct {
	id     string
	ref    sessions.Ref // whose it is
	node   string
	domain jid.JID
	until  time.Time
	exec   Execution
}

func newID() string { return rand.Text() }

// table has the sessions of this node, the one that waits longest first.
type table struct {
	cfg   Config
	clock plugins.Clock

	mu      sync.Mutex // leaf
	waiting *list.List // of *session
	byID    map[string]*list.Element
	of      map[jid.JID]int // how many an account has
}

func newTable(cfg Config, clock plugins.Clock) *table {
	return &table{cfg: cfg, clock: clock, waiting: list.New(), byID: map[string]*list.Element{}, of: map[jid.JID]int{}}
}

// put lets a session wait.
func (t *table) put(s *session) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.clock.Now()
	for e := t.waiting.Front(); e != nil && now.After(e.Value.(*session).until); e = t.waiting.Front() {
		t.remove(e)
	}
	who := s.ref.JID.Bare()
	if t.of[who] >= t.cfg.PerAccount {
		for e := t.waiting.Front(); e != nil; e = e.Next() {
			if e.Value.(*session).ref.JID.Bare() == who {
				t.remove(e)
				break
			}
		}
	}
	if t.waiting.Len() >= t.cfg.Sessions {
		return stanza.NewError(stanza.ResourceConstraint, "too many commands are under way; try again later")
	}
	s.until = now.Add(t.cfg.TTL)
	t.byID[s.id] = t.waiting.PushBack(s)
	t.of[who]++
	return nil
}

// take returns a session to who has begun it, and nobody else has it meanwhile.
// Errors: bad-sessionid, session-expired (XEP-0050 §4.4).
func (t *table) take(id string, a Asker, node string) (*session, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e, ok := t.byID[id]
	if !ok {
		return nil, command.Bad("bad-sessionid")
	}
	s := e.Value.(*session)
	if s.ref.JID != a.Session.JID || s.node != node || s.domain != a.Domain {
		return nil, command.Bad("bad-sessionid")
	}
	t.remove(e)
	if t.clock.Now().After(s.until) {
		return nil, command.Expired()
	}
	return s, nil
}

// left ends the sessions of a client that has gone.
func (t *table) left(ref sessions.Ref) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of[ref.JID.Bare()] == 0 {
		return
	}
	var next *list.Element
	for e := t.waiting.Front(); e != nil; e = next {
		next = e.Next()
		if e.Value.(*session).ref == ref {
			t.remove(e)
		}
	}
}

func (t *table) remove(e *list.Element) {
	s := t.waiting.Remove(e).(*session)
	delete(t.byID, s.id)
	who := s.ref.JID.Bare()
	if t.of[who]--; t.of[who] <= 0 {
		delete(t.of, who)
	}
}
