package ledger_test

import (
	"crypto/rand"
	"encoding/binary"
	"os"
	"strconv"
	"testing"
	"time"

	mrand "math/rand/v2"
)

// rounds is how often each fault strikes.
func rounds(t *testing.T) int {
	v := os.Getenv("PARLEY_LEDGER_ROUNDS")
	if v == "" {
		return 3
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		t.Fatalf("PARLEY_LEDGER_ROUNDS=%s", v)
	}
	return n
}

func seed(t *testing.T) uint64 {
	if v := os.Getenv("PARLEY_LEDGER_SEED"); v != "" {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatalf("PARLEY_LEDGER_SEED=%s", v)
		}
		return n
	}
	var b [8]byte
	_, _ = rand.Read(b[:])
	return binary.LittleEndian.Uint64(b[:])
}

// fault breaks something, waits for what people have to notice, and mends it.
// It returns when the recovery begins.
type fault func(w *world, random *mrand.Rand) time.Time

// outcome is a row of the table.
type outcome struct {
	database, fault string
	rounds          int
	verdict
	recovery []time.Duration // from the mending to the next acknowledgement
}

// play lets a fault strike a world round by round, and audits it.
func play(t *testing.T, o *outcome, s *server, seed uint64, f fault) {
	t.Helper()
	t.Logf("PARLEY_LEDGER_SEED=%d", seed)
	w := newWorld(t, s, seed)
	random := mrand.New(mrand.NewPCG(seed, 0))
	for range o.rounds {
		began := f(w, random)
		m := w.book.now()
		w.progress("recovery", m, 1)
		o.recovery = append(o.recovery, time.Since(began))
		w.progress("life after the fault", m, len(cast)*10)
	}
	o.verdict = w.settle()
	t.Logf("%s, %s: %d rounds, %d sent, %d acked, %d refused, %d repeated, recovery median %v", o.database, o.fault, o.rounds, o.sent, o.acked, o.refused, o.duplicates, median(o.recovery))
	if o.bad() {
		t.Errorf("lost %s\nreordered %s\nwrong %s", some(o.lost), some(o.reordered), some(o.wrong))
	}
}

// after waits for the random moment at which a fault strikes.
func after(random *mrand.Rand, most time.Duration) {
	time.Sleep(time.Duration(random.Int64N(int64(most))))
}

// killServer is kill -9 and a start on the same data (reliability row 32).
func killServer(w *world, random *mrand.Rand) time.Time {
	w.t.Helper()
	after(random, time.Second)
	began := time.Now()
	w.server.kill()
	if err := w.server.start(); err != nil {
		w.t.Fatal(err)
	}
	return began
}

func TestLedger(t *testing.T) {
	if testing.Short() {
		t.Skip("faults take their time")
	}
	program, n, first := build(t), rounds(t), seed(t)
	t.Run("sqlite", func(t *testing.T) {
		t.Run("kill", func(t *testing.T) {
			o := &outcome{database: "SQLite", fault: "server killed", rounds: n}
			play(t, o, newServer(t, program, t.TempDir(), "{driver: sqlite}"), first, killServer)
		})
	})
}
