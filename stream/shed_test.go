package stream

import (
	"context"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"

	"parley/router/channel"
)

// Who comes while memory is short is told so, and let in afterwards.
func TestReliability34NewcomersFirst(t *testing.T) {
	h := servable(t, func(*Config) {})
	var alive atomic.Int64
	h.shed.usage = func() (int64, int64) { return alive.Load(), 100 }
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Serve(ctx) }()
	doors, err := h.Doors(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		alive int64
		short bool
	}{{79, false}, {80, true}, {89, true}, {79, false}} {
		alive.Store(c.alive)
		h.relieve(ctx)
		conn, err := net.Dial("tcp", doors["c2s"])
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, "<stream:stream to='localhost' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>")
		var got []byte
		for buf := make([]byte, 4096); !strings.Contains(string(got), "</stream:"); {
			n, err := conn.Read(buf)
			if got = append(got, buf[:n]...); err != nil {
				break
			}
		}
		_ = conn.Close()
		if told := strings.Contains(string(got), "<resource-constraint "); told != c.short {
			t.Errorf("with %d of 100 in use: %s", c.alive, got)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

// Who reads what it is sent is not ended for the acknowledgements that it owes.
func TestReliability34WhoReadsStays(t *testing.T) {
	h := newHouse(t, func(c *Config) { c.Outbox = 1 << 20 })
	h.shed.usage = func() (int64, int64) { return 950_000, 1_000_000 }
	big := []byte("<message id='" + strings.Repeat("x", 2*shedLeast) + "'/>")
	reads, p := h.bound(t, "a")
	enable(t, reads, p)
	hangs, stuck := h.bound(t, "b")
	enable(t, hangs, stuck)
	stuck.stuck = true
	for _, c := range []*Conn{reads, hangs} {
		h.send1(c.session, channel.Envelope{Raw: big})
		if n, _, _ := c.session.buffered(); n < shedLeast {
			t.Fatalf("%d bytes", n)
		}
	}
	h.relieve(t.Context())
	if _, there := h.session(reads.session.ref); !there {
		t.Error("a client that reads is gone")
	}
	if _, there := h.session(hangs.session.ref); there {
		t.Error("one that does not read stays")
	}
}
