package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/storage"
	"parley/storage/storagetest"
)

// A name has one life at a time; a later one has a larger incarnation, after
// leaving, after a crash, and on another node.
func TestMust1OneLife(t *testing.T) {
	each(t, func(t *testing.T, db storage.DB) {
		refused := func() {
			t.Helper()
			o, _ := options(db, "a")
			_, err := Join(t.Context(), o)
			if !errors.Is(err, ErrTaken) {
				t.Fatalf("a second a: %v", err)
			}
			for _, part := range []string{`"a"`, "version 1.0", "another node name"} {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q does not say %q", err, part)
				}
			}
		}
		first := join(t, db, "a")
		refused()
		first.look() // which harmed nothing
		if err := first.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		second := join(t, db, "a")
		other := join(t, db, "b")
		second.Close()
		refused()
		age(t, db, "a", 2*term)
		third := join(t, db, "a")
		lives := []Member{first.Self(), second.Self(), other.Self(), third.Self()}
		for i := 1; i < len(lives); i++ {
			if lives[i].Incarnation <= lives[i-1].Incarnation {
				t.Errorf("incarnation %d after %d", lives[i].Incarnation, lives[i-1].Incarnation)
			}
		}
		for i, want := range []int{0, 0, 1, 0} {
			if lives[i].Number != want {
				t.Errorf("life %d has number %d, want %d", i, lives[i].Number, want)
			}
		}
		if err := first.Leave(t.Context()); err != nil { // late: what it had is another's
			t.Fatal(err)
		}
		third.look()
		if !third.Held() {
			t.Error("an old life has ended a new one")
		}
	})
}

// far is a database whose transactions take a while, as they do over a network.
type far struct{ storage.DB }

func (d far) Tx(ctx context.Context, f func(storage.Tx) error) error {
	return d.DB.Tx(ctx, func(tx storage.Tx) error {
		err := f(tx)
		time.Sleep(10 * time.Millisecond)
		return err
	})
}

// Those that come together get one life per name, and numbers of their own.
func TestMust1ManyAtOnce(t *testing.T) {
	storagetest.EachConfig(t, func(t *testing.T, c storage.Config) {
		const names, each = 20, 2
		c.MaxConns = names * each // all at once, indeed
		db := storagetest.Open(t, c)
		if err := Migrate(t.Context(), db); err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		var all sync.WaitGroup
		taken := 0
		numbers, lives := map[int]bool{}, map[uint64]bool{}
		for i := range names * each {
			all.Go(func() {
				o, n := options(far{db}, fmt.Sprintf("n%d", i%names))
				m, err := Join(t.Context(), o)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					if taken++; !errors.Is(err, ErrTaken) {
						t.Error(err)
					}
					return
				}
				n.Members = m
				t.Cleanup(m.Close)
				numbers[m.Self().Number], lives[m.Self().Incarnation] = true, true
			})
		}
		all.Wait()
		if len(numbers) != names || len(lives) != names || taken != names*(each-1) {
			t.Errorf("%d numbers, %d lives, %d refused", len(numbers), len(lives), taken)
		}
	})
}

// A node whose lease runs out leaves once, whatever comes later.
func TestMust2EachLifeLeavesOnce(t *testing.T) {
	each(t, func(t *testing.T, db storage.DB) {
		a, b := join(t, db, "a"), join(t, db, "b")
		a.look()
		a.hears(t, "+b")
		age(t, db, "b", 2*term)
		a.look()
		a.hears(t, "-b")
		a.sees(t, "a")
		a.look()
		// What a renewal does that was under way for too long.
		exec(t, db, `UPDATE cluster_node SET until = until + $1, ended = false WHERE node = $2`, (3 * term).Microseconds(), "b")
		a.look()
		a.sees(t, "a")
		age(t, db, "b", 3*term)
		join(t, db, "c")
		a.look()
		a.hears(t, "+c") // and nothing of b
		b.Close()
		again := join(t, db, "b")
		again.hears(t, "+a +c")
		a.look()
		a.hears(t, "+b")
		if m, ok := a.Find("b"); !ok || m.Incarnation != again.Self().Incarnation {
			t.Errorf("found %v %v", m, ok)
		}
	})
}

// A life that somebody saw end is over, also when the database's clock goes
// back: its node learns so at its next look.
func TestMust2DeathIsWrittenDown(t *testing.T) {
	each(t, func(t *testing.T, db storage.DB) {
		a, b := join(t, db, "a"), join(t, db, "b")
		age(t, db, "b", 2*term)
		a.look()
		age(t, db, "b", -2*term)
		b.clock.advance(renew)
		<-b.Fenced()
	})
}

// A node that leaves and comes back between two looks leaves first.
func TestMust2OldLifeLeavesFirst(t *testing.T) {
	each(t, func(t *testing.T, db storage.DB) {
		a, b := join(t, db, "a"), join(t, db, "b")
		a.look()
		a.hears(t, "+b")
		if err := b.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		join(t, db, "b")
		join(t, db, "c")
		a.look()
		a.hears(t, "-b", "+b +c")
	})
}

// Clocks of nodes are years apart; the database's alone counts.
func TestReliability29LeasesByTheDatabasesClock(t *testing.T) {
	each(t, func(t *testing.T, db storage.DB) {
		a, b := join(t, db, "a"), join(t, db, "bb")
		for range 5 {
			a.look()
			a.sees(t, "a bb")
		}
		b.look()
		b.sees(t, "a bb")
		if !a.Held() || !b.Held() {
			t.Error("fenced")
		}
	})
}

// A day after a life has ended its row goes, and its number to a newcomer; not
// before.
func TestMust5OldRowsGo(t *testing.T) {
	each(t, func(t *testing.T, db storage.DB) {
		rows := func() (n int) {
			t.Helper()
			if err := db.QueryRow(t.Context(), `SELECT count(*) FROM cluster_node`).Scan(&n); err != nil {
				t.Fatal(err)
			}
			return n
		}
		a, b := join(t, db, "a"), join(t, db, "b")
		b.Close()
		age(t, db, "b", keep)
		a.look()
		if n := rows(); n != 2 {
			t.Fatalf("%d rows", n)
		}
		if n := join(t, db, "c").Self().Number; n != 2 {
			t.Errorf("number %d", n)
		}
		age(t, db, "b", 2*term)
		a.look()
		if n := rows(); n != 2 {
			t.Errorf("%d rows after a day", n)
		}
		d := join(t, db, "d")
		if n := d.Self().Number; n != 1 {
			t.Errorf("number %d", n)
		}
		d.Close()
		age(t, db, "d", keep+2*term)
		if n := join(t, db, "e").Self().Number; n != 1 {
			t.Errorf("number %d: who joins looks, too", n)
		}
	})
}

// There are numbers for MaxNodes.
func TestNumbersRunOut(t *testing.T) {
	each(t, func(t *testing.T, db storage.DB) {
		a := join(t, db, "a")
		err := db.Tx(t.Context(), func(tx storage.Tx) error {
			for i := 1; i < MaxNodes; i++ {
				_, err := tx.Exec(t.Context(), `INSERT INTO cluster_node (node, incarnation, number, servers, version, draining, since, until, ended)
					SELECT $1, 0, $2, '', '', false, since, until, true FROM cluster_node WHERE node = 'a'`, fmt.Sprint("x", i), i)
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		o, _ := options(db, "b")
		if _, err := Join(t.Context(), o); err == nil || !strings.Contains(err.Error(), fmt.Sprint(MaxNodes, " numbers")) {
			t.Errorf("%v", err)
		}
		a.look()
		a.sees(t, "a")
		if n := join(t, db, "x7").Self().Number; n != 7 {
			t.Errorf("a node that comes back has number %d", n)
		}
	})
}

// A life that cannot look has not begun; its name is free at once.
func TestJoinFailsWithoutATrace(t *testing.T) {
	each(t, func(t *testing.T, db storage.DB) {
		join(t, db, "a")
		o, n := options(db, "b")
		first := join(t, db, "first")
		o.Metrics = first.reg // taken
		if _, err := Join(t.Context(), o); err == nil {
			t.Fatal("metrics are there twice")
		}
		n.db.fail(storage.ErrUnavailable)
		o.Metrics = n.reg
		if _, err := Join(t.Context(), o); !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("%v", err)
		}
		join(t, db, "b")
	})
}

func TestOptionsAreChecked(t *testing.T) {
	for name, change := range map[string]func(*Options){
		"no name":        func(o *Options) { o.Node = "" },
		"renewed seldom": func(o *Options) { o.Renew = term / 3 },
		"no lease":       func(o *Options) { o.Lease, o.Renew = -term, 0 },
		"no server":      func(o *Options) { o.Servers = []string{"a b"} },
	} {
		o, _ := options(nil, "a")
		change(&o)
		if _, err := Join(context.Background(), o); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	o, err := Options{Node: "a"}.withDefaults()
	if err != nil || o.Lease != 6*time.Second || o.Renew != 1500*time.Millisecond {
		t.Errorf("%v every %v: %v", o.Lease, o.Renew, err)
	}
}
