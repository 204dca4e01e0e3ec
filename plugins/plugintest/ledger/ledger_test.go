package ledger_test

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	mrand "math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"parley/storage/storagetest"
)

// shortRun is how often each fault strikes in make test.
const shortRun = 3

// rounds is how often each fault strikes.
func rounds(t *testing.T) int {
	v := os.Getenv("PARLEY_TEST_LEDGER_ROUNDS")
	if v == "" {
		return shortRun
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		t.Fatalf("PARLEY_TEST_LEDGER_ROUNDS=%s", v)
	}
	return n
}

func seed(t *testing.T) uint64 {
	if v := os.Getenv("PARLEY_TEST_LEDGER_SEED"); v != "" {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatalf("PARLEY_TEST_LEDGER_SEED=%s", v)
		}
		return n
	}
	var b [8]byte
	_, _ = rand.Read(b[:])
	return binary.LittleEndian.Uint64(b[:])
}

// The faults after which the server is started again.
const (
	serverKilled   = "server killed"
	fullThenKilled = "disk full, then killed"
)

func kills(fault string) bool { return fault == serverKilled || fault == fullThenKilled }

// fault breaks something, waits for what people have to notice, and mends it.
// It returns when the recovery begins.
type fault func(w *world, random *mrand.Rand) time.Time

// outcome is a row of the table.
type outcome struct {
	database, fault string
	rounds          int
	excuse          excuse
	verdict
	recovery []time.Duration // from the mending to the next acknowledgement
	right    []time.Duration // from the mending until every node showed who was there; none: there was one node
}

// pidOf is the process of a house that is one; 0: it does not run, or is several.
func pidOf(h house) int {
	if s, ok := h.(*server); ok {
		return s.pid()
	}
	return 0
}

// play lets a fault strike a world round by round, and audits it.
func play(t *testing.T, o *outcome, s house, seed uint64, f fault) {
	t.Helper()
	t.Logf("PARLEY_TEST_LEDGER_SEED=%d", seed)
	w := newWorld(t, s, seed)
	random := mrand.New(mrand.NewPCG(seed, 0))
	for range o.rounds {
		if w.views != nil {
			w.views.begin()
		}
		pid := pidOf(s)
		resumed := w.book.resumptions()
		began := f(w, random)
		over := time.Now()
		if !kills(o.fault) && pidOf(s) != pid {
			t.Error("the server was started again")
		}
		m := w.book.now()
		w.progress("recovery", m, 1)
		o.recovery = append(o.recovery, time.Since(began))
		if w.views != nil {
			w.views.settle(over)
		}
		w.progress("life after the fault", m, len(cast)*10)
		if kills(o.fault) && w.book.resumptions() == resumed {
			t.Error("nobody has resumed a session of before the kill")
		}
	}
	o.verdict = w.settle()
	if w.views != nil {
		o.ghosts, o.unseen, o.right = w.views.ghosts, w.views.unseen, w.views.right
	}
	if dumps() != "" {
		dump(t, "wrong", strings.Join(slices.Concat(o.lost, o.reordered, o.missed, o.astray, o.wrong, o.ghosts, o.unseen), "\n"))
	}
	o.excuse.apply(&o.verdict)
	t.Logf("%s, %s: %d rounds, %d sent, %d acked, %d refused, %d repeated, %d late, %d ghosts, in the room %d missed, %d reordered, %d repeated, %d told that they are out; %d resumed, recovery median %v, right views median %v, worst %v", o.database, o.fault, o.rounds, o.sent, o.acked, o.refused, o.duplicates, o.late, len(o.ghosts), len(o.missed), len(o.astray), o.verdict.repeated, w.book.outs, w.book.resumptions(), median(o.recovery), median(o.right), worst(o.right))
	if o.excuse.failed(o.verdict) {
		t.Errorf("lost %s\nreordered %s\nlate %d\nmissed in the room %s\nreordered in the room %s\nwrong %s\nghosts %s\nunseen %s", some(o.lost), some(o.reordered), o.late, some(o.missed), some(o.astray), some(o.wrong), some(o.ghosts), some(o.unseen))
	}
}

// after waits for the random moment at which a fault strikes.
func after(random *mrand.Rand, most time.Duration) {
	time.Sleep(time.Duration(random.Int64N(int64(most))))
}

// killServer is kill -9 and a start on the same data (reliability row 32).
func killServer(s *server) fault {
	return func(w *world, random *mrand.Rand) time.Time {
		w.t.Helper()
		after(random, time.Second)
		began := time.Now()
		s.kill()
		if err := s.start(); err != nil {
			w.t.Fatal(err)
		}
		return began
	}
}

// refused waits until people are told that something is wrong.
func refused(w *world, m mark) {
	w.t.Helper()
	w.await("an error", func(now mark) bool { return now.refusals > m.refusals })
}

// killDatabase lets Postgres die and come back (reliability row 31).
func killDatabase(p *postgres) fault {
	return func(w *world, random *mrand.Rand) time.Time {
		after(random, time.Second)
		// Somebody has to be able to speak: what was refused before fills windows
		// until it is acknowledged.
		w.progress("talk before the fault", w.book.now(), 2*window)
		m := w.book.now()
		p.kill()
		refused(w, m)
		began := time.Now()
		p.start()
		return began
	}
}

// freezeDatabase stops Postgres in the middle of its work, for a moment.
func freezeDatabase(p *postgres) fault {
	return func(_ *world, random *mrand.Rand) time.Time {
		after(random, time.Second)
		p.freeze()
		after(random, time.Second)
		began := time.Now()
		p.thaw()
		return began
	}
}

// freezeForLong stops it until people are told.
func freezeForLong(p *postgres) fault {
	return func(w *world, random *mrand.Rand) time.Time {
		after(random, time.Second)
		m := w.book.now()
		p.freeze()
		refused(w, m)
		began := time.Now()
		p.thaw()
		return began
	}
}

// slowDatabase puts the database far away. Everything goes on, slowly.
func slowDatabase(p *storagetest.Proxy) fault {
	return func(w *world, random *mrand.Rand) time.Time {
		after(random, time.Second)
		p.Slow(10*time.Millisecond + time.Duration(random.Int64N(int64(40*time.Millisecond))))
		m := w.book.now()
		w.progress("life with a slow database", m, 50)
		began := time.Now()
		p.Slow(0)
		return began
	}
}

// fillDisk leaves no room where the data are (reliability row 30).
func fillDisk(dir string) fault {
	return func(w *world, random *mrand.Rand) time.Time {
		w.t.Helper()
		after(random, time.Second)
		m := w.book.now()
		file := filepath.Join(dir, "ballast")
		if err := storagetest.Fill(file); err != nil {
			w.t.Fatal(err)
		}
		refused(w, m)
		began := time.Now()
		if err := os.Remove(file); err != nil {
			w.t.Fatal(err)
		}
		return began
	}
}

// fillAndKill kills the server soon after there was no room, and there is some
// again: how far a session has come is written then, and who was refused may not
// know of it.
func fillAndKill(dir string, s *server) fault {
	full, kill := fillDisk(dir), killServer(s)
	return func(w *world, random *mrand.Rand) time.Time {
		w.t.Helper()
		full(w, random)
		return kill(w, random)
	}
}

func TestLedger(t *testing.T) {
	if testing.Short() {
		t.Skip("faults take their time")
	}
	l := &long{program: build(t), rounds: rounds(t), seed: seed(t)}
	t.Run("sqlite", l.sqlite)
	t.Run("postgres", l.postgres)
	t.Run("nodes", l.nodes)
	l.table(t)
}

// long is one run of everything.
type long struct {
	program string
	rounds  int
	seed    uint64
	rows    []*outcome
}

// fault makes a subtest of one; prepare makes the server and the fault.
func (l *long) fault(t *testing.T, database, name string, rounds int, prepare func(t *testing.T) (*server, fault)) {
	t.Run(strings.NewReplacer(" ", "-", ",", "").Replace(name), func(t *testing.T) {
		s, f := prepare(t)
		l.play(t, &outcome{database: database, fault: name, rounds: rounds}, s, f)
	})
}

func (l *long) play(t *testing.T, o *outcome, h house, f fault) {
	t.Helper()
	play(t, o, h, l.seed+uint64(len(l.rows)), f)
	l.rows = append(l.rows, o)
}

func (l *long) sqlite(t *testing.T) {
	const storage = "{driver: sqlite}"
	l.fault(t, "SQLite", serverKilled, l.rounds, func(t *testing.T) (*server, fault) {
		s := newServer(t, l.program, t.TempDir(), storage)
		return s, killServer(s)
	})
	l.fault(t, "SQLite", "disk full", l.rounds, func(t *testing.T) (*server, fault) {
		dir := storagetest.SmallDisk(t, 64)
		return newServer(t, l.program, dir, storage), fillDisk(dir)
	})
	l.fault(t, "SQLite", fullThenKilled, l.rounds, func(t *testing.T) (*server, fault) {
		dir := storagetest.SmallDisk(t, 64)
		s := newServer(t, l.program, dir, storage)
		return s, fillAndKill(dir, s)
	})
}

func (l *long) postgres(t *testing.T) {
	p := startPostgres(t)
	far := func(t *testing.T, u *url.URL) *server {
		return newServer(t, l.program, t.TempDir(), fmt.Sprintf("{driver: postgres, statement_timeout: 1s, dsn: %q}", u))
	}
	for _, c := range []struct {
		name string
		f    func(*server) fault
	}{
		{serverKilled, killServer},
		{"database killed", func(*server) fault { return killDatabase(p) }},
		{"database frozen", func(*server) fault { return freezeDatabase(p) }},
	} {
		l.fault(t, "Postgres", c.name, l.rounds, func(t *testing.T) (*server, fault) {
			s := far(t, p.database(t))
			return s, c.f(s)
		})
	}
	l.fault(t, "Postgres", "database slow", l.rounds, func(t *testing.T) (*server, fault) {
		u := p.database(t)
		way := storagetest.NewProxy(t, storagetest.Listen(t), u.Host)
		u.Host = way.Address()
		return far(t, u), slowDatabase(way)
	})
	l.fault(t, "Postgres", "database frozen for long", l.rounds/7+1, func(t *testing.T) (*server, fault) {
		return far(t, p.database(t)), freezeForLong(p)
	})
}
