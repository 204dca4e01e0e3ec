package processor

import (
	"context"
	"errors"
	"sync"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/router/channel"
	"parley/router/sessions"
)

// takeoverWait is how long a session waits for the end of the one whose address
// it takes: longer than that one's streamer waits for what its client has sent.
const takeoverWait = 12 * time.Second

// Why a session does not wait any longer.
var (
	errLeft      = errors.New("its client has gone")
	errSucceeded = errors.New("a newer one takes the address")
)

// takeovers are sessions that wait for the ends of those whose addresses they take
// (RFC 6120 §7.7.2.2): what the old one's client has sent is done, and its end told,
// before the new one is there. Else its last words came behind its end, and their
// answers to its successor. Nobody else waits meanwhile: streams share the roads here.
type takeovers struct {
	tasks  sync.WaitGroup
	ctx    context.Context //nolint:containedctx // of the stage: what is begun in it goes on beside the roads
	cancel context.CancelFunc

	mu      sync.Mutex
	waiting map[sessions.Ref]*takeover     // by who comes: streams that are logging in, which the streamer bounds
	newest  map[jid.JID]*takeover          // of those that want an address
	ending  map[sessions.Ref]chan struct{} // by who goes: closed when its end has been told
}

// takeover is one of them.
type takeover struct {
	stop context.CancelCauseFunc // ends the wait
	over chan struct{}           // closed when the session is bound, or is not to be any more
}

// start lets sessions wait until finish.
func (t *takeovers) start(ctx context.Context) {
	t.ctx, t.cancel = context.WithCancel(context.WithoutCancel(ctx))
}

// begin runs f for a session that has to wait. Whoever waits for the same address is given
// up first: the newest gets it. f's first context ends with the wait, the second one with
// the stage.
func (t *takeovers) begin(who sessions.Ref, f func(wait, ctx context.Context)) {
	ctx := t.ctx
	wait, stop := context.WithCancelCause(ctx)
	one := &takeover{stop, make(chan struct{})}
	t.mu.Lock()
	if t.waiting == nil {
		t.waiting, t.newest = map[sessions.Ref]*takeover{}, map[jid.JID]*takeover{}
	}
	before := t.newest[who.JID]
	t.waiting[who], t.newest[who.JID] = one, one
	t.mu.Unlock()
	if before != nil {
		before.stop(errSucceeded)
	}
	t.tasks.Go(func() {
		defer func() {
			stop(nil)
			t.mu.Lock()
			delete(t.waiting, who)
			if t.newest[who.JID] == one {
				delete(t.newest, who.JID)
			}
			t.mu.Unlock()
			close(one.over)
		}()
		if before != nil {
			<-before.over
		}
		f(wait, ctx)
	})
}

// wanted reports whether somebody waits for the address: who comes next is newer, and has
// to know what became of it.
func (t *takeovers) wanted(at jid.JID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.newest[at] != nil
}

// giveUp ends the wait of a session whose client has gone. When it returns the session
// is bound, or will not be.
func (t *takeovers) giveUp(who sessions.Ref) {
	t.mu.Lock()
	one := t.waiting[who]
	t.mu.Unlock()
	if one != nil {
		one.stop(errLeft)
		<-one.over
	}
}

// giveUpSlot is giveUp for all whose sockets were at a process that has gone.
func (t *takeovers) giveUpSlot(slot int) {
	t.mu.Lock()
	var all []sessions.Ref
	for who := range t.waiting {
		if sessions.SlotOf(who.Conn) == slot {
			all = append(all, who)
		}
	}
	t.mu.Unlock()
	for _, who := range all {
		t.giveUp(who)
	}
}

// finish gives all up: the stage ends.
func (t *takeovers) finish() {
	t.cancel()
	t.tasks.Wait()
}

// ends notes that the end of a session is being told here, until done.
func (t *takeovers) ends(who sessions.Ref) (done func()) {
	told := make(chan struct{})
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ending == nil {
		t.ending = map[sessions.Ref]chan struct{}{}
	}
	t.ending[who] = told
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.ending, who)
		close(told)
	}
}

// told is closed when a session's end is not being told here any more; nil: it is not.
func (t *takeovers) told(who sessions.Ref) <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ending[who]
}

// ousts is the session that has to end before the one that comes can be bound; nil:
// none.
func (s *Server) ousts(e *channel.Envelope) *sessions.Entry {
	if s.cfg.ResourceConflict != Replace || e.State.Kind != sessions.Client || e.State.Paused { // of before the start, and its client has gone elsewhere
		return nil
	}
	old, ok := s.env.Sessions.Find(e.Session.JID)
	if !ok || old.Ref == e.Session {
		return nil
	}
	return old
}

// dead reports whether the session's node is gone: nobody ends it there, it is told of
// here.
func (s *Server) dead(old *sessions.Entry) bool {
	n := s.env.Notices
	return n != nil && old.Node != s.env.Node && !n.Alive(old.Node)
}

// takeOver binds the session when the one before it has ended: that one's node settles
// what it has sent and tells whom it concerns. When it does not answer the newer session
// counts (sessions.Registry.Adopt). wait ends when the session is not to be bound.
func (s *Server) takeOver(wait, ctx context.Context, e *channel.Envelope, old *sessions.Entry) {
	limited, cancel := context.WithTimeout(wait, takeoverWait)
	defer cancel()
	var after time.Time
	if old == nil { // somebody else has waited for it
		old = s.ousts(e)
	}
	for ; old != nil && limited.Err() == nil; old = s.ousts(e) {
		after = old.BoundAt.Add(time.Microsecond)
		if s.dead(old) {
			break
		}
		s.end(limited, old.Ref)
	}
	if wait.Err() != nil || !s.env.Held() {
		if errors.Is(context.Cause(wait), errSucceeded) {
			answer := *e
			answer.Kind, answer.State, answer.Reason = channel.Handled, nil, string(stanza.Conflict)
			s.send(ctx, []*channel.Envelope{&answer})
		}
		return
	}
	if old != nil && !s.dead(old) {
		s.log.Warn("a session is taken over from a node that does not answer", "jid", e.Session.JID.String(), "node", old.Node)
	}
	t := s.acquire()
	defer t.Leave()
	run := newRun(s, t, 1)
	s.bindNow(ctx, run, e, after)
	run.flush(ctx)
}

// end ends a session and waits until that has been told.
func (s *Server) end(ctx context.Context, old sessions.Ref) {
	gone := s.env.Sessions.Gone(old)
	s.send(ctx, []*channel.Envelope{{Kind: channel.Close, To: []sessions.Ref{old}, Reason: string(stanza.StreamConflict), AtOnce: true}})
	select {
	case <-gone:
	case <-ctx.Done():
		return
	}
	if told := s.takeovers.told(old); told != nil {
		select {
		case <-told:
		case <-ctx.Done():
		}
	}
}
