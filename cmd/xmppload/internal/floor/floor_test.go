//go:build linux

package floor_test

import (
	"context"
	"os"
	"testing"
	"time"

	"parley/cmd/xmppload/internal/floor"
	"parley/cmd/xmppload/internal/scenario"
	"parley/cmd/xmppload/internal/wire"
)

// start runs a floor in process until the test ends.
func start(t *testing.T) *scenario.Server {
	t.Helper()
	loop, err := wire.NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	addr, err := floor.New(loop, "localhost").Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- loop.Run(func() bool {
			select {
			case <-stop:
				return true
			default:
				return false
			}
		}, time.Hour)
		loop.Close()
	}()
	t.Cleanup(func() {
		close(stop)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return &scenario.Server{
		Name: "floor", PIDs: []int{os.Getpid()}, Rooms: "rooms.localhost", Register: "0077",
		Login: wire.Login{Addr: addr, Domain: "localhost", Mechanism: "PLAIN", TLS: wire.Plain, Timeout: time.Minute, Sources: 3},
	}
}

// Every scenario runs against the floor and finds nothing lost, twice or out
// of order.
func TestScenarios(t *testing.T) {
	s := start(t)
	c := scenario.Common{Parallel: 4, Patience: time.Minute, Settle: time.Millisecond}
	type runner interface {
		Run(context.Context, *scenario.Server) (*scenario.Result, error)
	}
	for name, sc := range map[string]struct {
		run  runner
		want []string
	}{
		"chat":          {scenario.Chat{Common: c, Pairs: 5, Window: 1, Messages: 500, Body: 10}, []string{"CPU per 100,000 messages", "rate"}},
		"chat, window":  {scenario.Chat{Common: c, Pairs: 5, Window: 8, Messages: 2000, Body: 3000}, []string{"CPU per 100,000 messages"}},
		"chat, at rate": {scenario.Chat{Common: c, Pairs: 5, Rate: 5000, Messages: 500, Body: 10}, []string{"p50", "p95", "p99"}},
		"presence":      {scenario.Presence{Common: c, Contacts: 7, Changes: 50, Window: 2}, []string{"CPU per 100,000 presences"}},
		"room":          {scenario.Room{Common: c, Occupants: 7, Posts: 50, Window: 2, Body: 10}, []string{"CPU per 100,000 deliveries"}},
		"joins":         {scenario.Joins{Common: c, Occupants: 12}, []string{"CPU per 1,000,000 stanzas of joins"}},
		"login":         {scenario.Login{Common: c, Count: 20, Accounts: 5}, []string{"CPU per 1,000 logins", "CPU per 1,000 first logins"}},
		"idle":          {scenario.Idle{Common: c, Sessions: 20}, []string{"RSS per session"}},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := sc.run.Run(t.Context(), s)
			if err != nil {
				t.Fatal(err)
			}
			if r.Faults.Any() {
				t.Error(r.Faults)
			}
			got := map[string]bool{}
			for _, m := range r.Metrics {
				got[m.Name] = true
			}
			for _, name := range sc.want {
				if !got[name] {
					t.Errorf("%q is not among %v", name, r.Metrics)
				}
			}
		})
	}
}

// A server that loses what it takes is found out: the floor stores nothing for
// people who are away.
func TestLossIsFound(t *testing.T) {
	s := start(t)
	c := scenario.Common{Parallel: 4, Patience: 200 * time.Millisecond, Settle: time.Millisecond}
	r, err := scenario.Offline{Common: c, Pairs: 2, Each: 5, Body: 10}.Run(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if r.Faults.Lost != 10 {
		t.Errorf("%v; ten messages went nowhere", r.Faults)
	}
}
