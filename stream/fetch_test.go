package stream

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/parser/jid"
	"parley/plugins"
)

// elsewhere is where sessions come from that are asked for; none can be had.
type elsewhere struct {
	Resumptions
	asked chan Key
	shut  chan struct{}
	now   atomic.Int32
	most  atomic.Int32
}

func (e *elsewhere) Take(_ context.Context, k Key, _ jid.JID) (*Lasting, error) {
	if n := e.now.Add(1); n > e.most.Load() {
		e.most.Store(n)
	}
	defer e.now.Add(-1)
	e.asked <- k
	<-e.shut
	return nil, errors.New("not to be had")
}

// Of several connections that want one session of another node at once one
// fetches it; who finds then what came of it does not fetch it again. Other
// sessions are not held up.
func TestOneAtATimeFetchesASession(t *testing.T) {
	e := &elsewhere{asked: make(chan Key, 10), shut: make(chan struct{})}
	s := &Server{log: slog.New(slog.DiscardHandler), cfg: *defaults(), env: plugins.Env{Clock: plugins.SystemClock{}}}
	s.table.Store(newTable([]*Registrar{{resumptions: e}}))
	romeo := jid.MustParse("romeo@localhost")
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() { s.fetch(t.Context(), Key{1}, romeo) })
	}
	<-e.asked
	all.Go(func() { s.fetch(t.Context(), Key{2}, romeo) })
	if k := <-e.asked; k != (Key{2}) {
		t.Error("two fetch one session")
	}
	given, cancel := context.WithCancel(t.Context())
	cancel()
	s.fetch(given, Key{1}, romeo) // whose client has gone waits no longer
	s.resumes.remember(Key{1}, pastSession{account: romeo})
	close(e.shut)
	all.Wait()
	if n := len(e.asked); n != 0 {
		t.Errorf("fetched %d times more", n)
	}
	if n := len(s.resumes.busy); n != 0 {
		t.Errorf("%d are still looked for", n)
	}
	if done, ok := s.resumes.alone(t.Context(), Key{3}, time.Hour); ok {
		if _, ok := s.resumes.alone(t.Context(), Key{3}, time.Nanosecond); ok {
			t.Error("not alone")
		}
		done()
	}
}
