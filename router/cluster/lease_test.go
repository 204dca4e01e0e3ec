package cluster

import (
	"errors"
	"testing"
	"time"

	"parley/storage"
)

// A node that cannot renew is fenced while the others still count on it.
func TestMust3FencedBeforeDead(t *testing.T) {
	each(t, func(t *testing.T, db storage.DB) {
		a, b := join(t, db, "a"), join(t, db, "b")
		b.db.fail(storage.ErrUnavailable)
		b.round(renew, retry)
		passed := renew
		for ; passed+retry < limit; passed += retry {
			if b.fenced() || !b.Held() {
				t.Fatalf("fenced after %v", passed)
			}
			b.round(retry, retry)
		}
		b.clock.advance(limit - passed)
		<-b.Fenced()
		if _, ok := b.Owner("k", "router"); ok || b.Held() {
			t.Error("acts after it was fenced")
		}
		a.look() // the rest of b's lease
		a.sees(t, "a b")
	})
}

// A process that stood still knows at its first question, and renews nothing.
func TestMust3Frozen(t *testing.T) {
	each(t, func(t *testing.T, db storage.DB) {
		asks := map[string]func(n *node){
			"Held":  func(n *node) { n.Held() },
			"Owner": func(n *node) { n.Owner("k", "router") },
			"round": func(n *node) { n.kick() },
		}
		for name, ask := range asks {
			n := join(t, db, name)
			n.clock.jump(limit)
			ask(n)
			<-n.Fenced()
			n.Close()
			if calls := n.db.took(); calls != "" {
				t.Errorf("%s: %s after it stood still", name, calls)
			}
			if n := n.log.count("fenced"); n != 1 {
				t.Errorf("%s: logged %d times", name, n)
			}
		}
	})
}

// A process that stood still while a statement was on its way is fenced,
// although that has renewed.
func TestMust3FrozenInARound(t *testing.T) {
	each(t, func(t *testing.T, db storage.DB) {
		n := join(t, db, "a")
		release := n.db.hold(true)
		n.clock.advance(renew)
		<-n.db.asked
		n.clock.jump(limit)
		release()
		<-n.Fenced()
	})
}

// A renewal counts from before its statement was sent, not from its answer.
func TestMust3CountsFromBefore(t *testing.T) {
	each(t, func(t *testing.T, db storage.DB) {
		n := join(t, db, "a")
		release := n.db.hold(true)
		n.clock.advance(renew)
		<-n.db.asked
		n.clock.jump(patience - time.Second)
		before := n.clock.count(renew)
		release()
		n.clock.await(renew, before+1)
		if left := n.lease.left(); left != limit-patience+time.Second {
			t.Errorf("%v left", left)
		}
	})
}

// A lease that has run out is not renewed, also when nobody saw it.
func TestMust3RunOut(t *testing.T) {
	each(t, func(t *testing.T, db storage.DB) {
		n := join(t, db, "a")
		age(t, db, "a", 2*term)
		n.clock.advance(renew)
		<-n.Fenced()
	})
}

// Somebody has the node's name: the next look, or Drain, says so.
func TestMust3TakenAway(t *testing.T) {
	each(t, func(t *testing.T, db storage.DB) {
		for name, ask := range map[string]func(n *node){
			"look": func(n *node) { n.clock.advance(renew) },
			"drain": func(n *node) {
				if err := n.Drain(t.Context()); !errors.Is(err, ErrFenced) {
					t.Errorf("drain: %v", err)
				}
			},
		} {
			n := join(t, db, name)
			age(t, db, name, 2*term)
			join(t, db, name)
			ask(n)
			<-n.Fenced()
		}
	})
}

// A round is one trip to the database.
func TestMust4OneRoundTrip(t *testing.T) {
	each(t, func(t *testing.T, db storage.DB) {
		n := join(t, db, "a")
		n.look()
		want := map[storage.Dialect]string{storage.SQLite: "Tx", storage.Postgres: "Query"}[db.Dialect()]
		if got := n.db.took(); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

// A database that hangs is given up in time for others to be asked, within the
// margin, and asked again.
func TestMust4GivenUpInTime(t *testing.T) {
	each(t, func(t *testing.T, db storage.DB) {
		n := join(t, db, "a")
		if n.opt.patience() != patience || patience >= n.opt.margin() {
			t.Fatalf("patience of %v, margin of %v", n.opt.patience(), n.opt.margin())
		}
		n.db.hold(false)
		n.clock.advance(renew)
		<-n.db.asked
		n.round(patience, retry)
		n.round(retry, renew)
		if !n.Held() {
			t.Error("fenced")
		}
	})
}

// An outage is logged when it begins and when it ends, however many rounds fail.
func TestMust4LoggedOncePerOutage(t *testing.T) {
	each(t, func(t *testing.T, db storage.DB) {
		n := join(t, db, "a")
		for outage := 1; outage <= 2; outage++ {
			n.db.fail(storage.ErrUnavailable)
			n.round(renew, retry)
			n.round(retry, retry)
			n.round(retry, retry)
			n.db.fail(nil)
			n.round(retry, renew)
			n.look()
			if down, up := n.log.count("trying again"), n.log.count("renewed again"); down != outage || up != outage {
				t.Errorf("outage %d: %d began, %d ended", outage, down, up)
			}
		}
	})
}
