package all_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"parley/plugins/all"
	"parley/plugins/plugintest"
	"parley/storage"
	"parley/storage/storagetest"
)

// A house with queues stops while its clients are still talking: no stage
// waits for one that has gone.
func TestStopWithQueuesUnderTraffic(t *testing.T) {
	h := plugintest.Start(t, plugintest.Options{Plugins: all.Plugins(), Config: workers})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for i := range 4 {
		c, err := h.Login(ctx, fmt.Sprintf("user%d", i), "a")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Send("<presence/>"); err != nil {
			t.Fatal(err)
		}
		go func() { // until the server closes the connection
			for c.Send(fmt.Sprintf("<message to='user%d@localhost' type='chat'><body>x</body></message>", (i+1)%4)) == nil {
			}
		}()
	}
	if err := h.Stop(ctx); err != nil {
		t.Fatal(err)
	}
}

// stopLimit is less than what docs/cluster.md says of a stop, with the timeouts of
// this test.
const stopLimit = 30 * time.Second

// TestReliabilityStopEnds: a node stops in a known time when the database, NATS or
// both do not answer any more, with clients that have sent something, that have gone
// and that may come back.
func TestReliabilityStopEnds(t *testing.T) {
	for _, x := range []struct {
		name    string
		drained bool
		lost    []plugintest.Wire
	}{
		{"nothing is lost", false, nil},
		{"nats", true, []plugintest.Wire{plugintest.ToNATS}},
		{"database", false, []plugintest.Wire{plugintest.ToDatabase}},
		{"database, drained", true, []plugintest.Wire{plugintest.ToDatabase}},
		{"both", false, []plugintest.Wire{plugintest.ToNATS, plugintest.ToDatabase}},
	} {
		t.Run(x.name, func(t *testing.T) { stopEnds(t, x.drained, x.lost) })
	}
}

func stopEnds(t *testing.T, drained bool, lost []plugintest.Wire) {
	pg := storagetest.Postgres(t)
	pg.StatementTimeout = time.Second
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	h := plugintest.Start(t, plugintest.Options{
		Plugins: all.Plugins(), Nodes: 2, Mortal: true, Storage: func() storage.Config { return pg },
		Config: "servers: {streamer: {timeouts: {drain: 1s, close: 1s}}}",
	})
	romeo := login(ctx, t, h, 0, "romeo", "orchard", true)
	juliet := login(ctx, t, h, 1, "juliet", "balcony", true)
	befriend(juliet, romeo)
	befriend(romeo, juliet)
	login(ctx, t, h, 0, "nurse", "chamber", false)
	away := login(ctx, t, h, 0, "paris", "church", true)
	away.Close()
	if drained {
		if err := h.HostOf(0).Control().Drain(ctx, "node1", 1); err != nil {
			t.Fatal(err)
		}
	}
	for _, w := range lost {
		h.Cut(0, w)
	}
	_ = romeo.Send("<message to='juliet@localhost' type='chat' id='m1'><body>farewell</body></message><presence><show>away</show></presence>")
	began := time.Now()
	err := h.HostOf(0).Stop(ctx)
	took := time.Since(began)
	t.Logf("after %v: %v", took, err)
	if took > stopLimit || err != nil && strings.Contains(err.Error(), "does not end") {
		t.Errorf("after %v: %v", took, err)
	}
	for _, w := range lost {
		h.Mend(0, w)
	}
}
