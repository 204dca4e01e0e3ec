package processor

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/parser/jid"
	"parley/plugins"
	"parley/router/channel"
	"parley/router/sessions"
)

// wall is the time of the system.
type wall struct{}

func (wall) Now() time.Time { return time.Now() }
func (wall) AfterFunc(d time.Duration, f func()) func() bool {
	return time.AfterFunc(d, f).Stop
}

func newBare() *Server {
	s := &Server{log: slog.New(slog.DiscardHandler), cfg: *defaults()}
	counter := prometheus.NewCounter(prometheus.CounterOpts{Name: "x"})
	s.metrics = metrics{panics: counter, refused: counter}
	s.env = plugins.Env{Sessions: sessions.NewRegistry(), Clock: wall{}, Log: s.log}
	s.table.Store(newTable(nil))
	s.takeovers.start(context.Background())
	return s
}

// gate is a clock at which everybody who asks for the time waits for the others.
type gate struct {
	wall
	all *sync.WaitGroup
}

func (g gate) Now() time.Time {
	g.all.Done()
	g.all.Wait()
	return time.Now()
}

// However many bind at one moment, an account never has more sessions than it
// may (RFC 6120 §13.12).
func TestMaxResourcesAtOneMoment(t *testing.T) {
	const n = 8
	s := newBare()
	s.cfg.MaxResources = 2
	var ready, all sync.WaitGroup
	ready.Add(n)
	s.env.Clock = gate{all: &ready} // asked for when a session begins
	for i := range n {
		all.Go(func() {
			ref := sessions.Ref{Node: "n", Conn: uint64(i + 1), JID: jid.MustParse(fmt.Sprintf("romeo@b/%d", i))}
			s.bind(context.Background(), newRun(s, s.table.Load(), 1), &channel.Envelope{Kind: channel.Bind, Session: ref, State: &sessions.State{Kind: sessions.Client}})
		})
	}
	all.Wait()
	if n := len(s.env.Sessions.Account(jid.MustParse("romeo@b"))); n != 2 {
		t.Fatalf("%d sessions, allowed are 2", n)
	}
}

// idle is a component that does nothing.
type idle struct{}

func (idle) Start(context.Context) error { return nil }
func (idle) Stop(context.Context) error  { return nil }
func (idle) Register(*Registrar)         {}

// A detach that was given up can be repeated, and still waits for who runs in
// the component.
func TestDetachAgainAfterTimeout(t *testing.T) {
	s := newBare()
	detach, err := s.Attach("slow", idle{})
	if err != nil {
		t.Fatal(err)
	}
	busy := s.acquire()
	over, cancel := context.WithCancel(context.Background())
	cancel()
	for i := range 2 {
		if detach(over) == nil {
			t.Fatalf("try %d: detached while somebody runs in it", i+1)
		}
	}
	var back atomic.Bool
	attached := make(chan struct{})
	go func() {
		_, _ = s.Attach("slow", idle{})
		if !back.Load() {
			t.Error("its successor does not wait either")
		}
		close(attached)
	}()
	back.Store(true)
	busy.Leave()
	<-attached
	if err := detach(context.Background()); err != nil {
		t.Error(err)
	}
}
