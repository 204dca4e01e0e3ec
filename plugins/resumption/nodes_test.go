package resumption

import (
	"context"
	"errors"
	"testing"
	"time"

	"parley/parser/jid"
	"parley/router/sessions"
	"parley/storage"
	"parley/storage/storagetest"
	"parley/stream"
)

// nodes are the others as a test wants them.
type nodes struct {
	alive  map[string]bool
	lives  map[string]uint64
	asks   int
	ask    func(node string) error
	buried func(ctx context.Context) error
	deaths []func(context.Context, string, uint64) error
}

func (n *nodes) On(string, func(string))                    {}
func (n *nodes) Tell(context.Context, string, string) error { return nil }
func (n *nodes) Owns(string) bool                           { return true }
func (n *nodes) Alive(node string) bool                     { return n.alive[node] }

// LifeOf: lives are what tests say, or number 7 as the row does.
func (n *nodes) LifeOf(node string) uint64 {
	switch life, said := n.lives[node]; {
	case !n.alive[node]:
		return 0
	case said:
		return life
	}
	return 7
}

func (n *nodes) Held() bool   { return true }
func (n *nodes) Life() uint64 { return 7 }

func (n *nodes) OnDeath(f func(context.Context, string, uint64) error) {
	n.deaths = append(n.deaths, f)
}

func (n *nodes) Ask(_ context.Context, node, _, _ string) error {
	n.asks++
	return n.ask(node)
}

func (n *nodes) Buried(ctx context.Context, _ string, _ uint64, _ jid.JID) error {
	return n.buried(ctx)
}

// eachNode is eachDesk on the node n, which is not alone. The session's key is
// 1, and its process was number 7.
func eachNode(t *testing.T, f func(d *desk, others *nodes)) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		others := &nodes{alive: map[string]bool{"n": true}}
		d := newDesk(t, db, others)
		f(d, others)
	})
}

// set changes the row.
func (d *desk) set(sql string, args ...any) {
	d.t.Helper()
	if n, err := d.db.Exec(d.t.Context(), `UPDATE resumption SET `+sql, args...); err != nil || n != 1 {
		d.t.Fatal(n, err)
	}
}

// A death is noted once, for the life that is over and those before it; sessions
// that the node had given away were told of to nobody.
func TestTheDeadAreBuriedOnce(t *testing.T) {
	eachNode(t, func(d *desk, others *nodes) {
		die := func(life uint64) {
			d.t.Helper()
			if err := others.deaths[0](d.t.Context(), "n", life); err != nil {
				d.t.Fatal(err)
			}
		}
		before := d.row()
		die(6)
		if l := d.row(); l.State.Buried || l.epoch != before.epoch {
			d.t.Error("the next life's session is buried")
		}
		die(7)
		die(7)
		l := d.row()
		if !l.State.Buried || l.epoch != before.epoch+1 || l.Away.IsZero() {
			d.t.Errorf("buried %v, epoch %d after %d, away since %v", l.State.Buried, l.epoch, before.epoch, l.Away)
		}
		d.set(`buried = 0, died = 0, given = 1`)
		die(7)
		if l := d.row(); l.State.Buried || l.epoch != before.epoch+1 || l.Away.IsZero() {
			d.t.Errorf("given: buried %v, epoch %d after %d, away since %v", l.State.Buried, l.epoch, before.epoch, l.Away)
		}
		if all, err := takeAll(d.t.Context(), d.db, "n", 8, false, func(stream.Key) *record { return nil }); err != nil || len(all) != 1 {
			d.t.Fatal(all, err)
		}
		die(7)
		if l := d.row(); !l.Away.IsZero() || l.State.Buried {
			d.t.Error("taken, and still dead")
		}
	})
}

// Sessions of nodes that never come back end when nobody has come for them
// within their window, counted from the death, or from when it was first seen.
func TestSessionsOfNodesThatNeverComeBackEnd(t *testing.T) {
	for _, node := range []string{"gone", ""} {
		eachNode(t, func(d *desk, others *nodes) {
			d.set(`node = $1`, node)
			c := &ahead{}
			d.env.Clock = c
			sweep := func() left {
				d.t.Helper()
				if err := d.sweepOnce(d.t.Context()); err != nil {
					d.t.Fatal(err)
				}
				return d.row()
			}
			others.alive[node] = true
			if l := sweep(); l.Over || !l.Away.IsZero() {
				d.t.Error("its node is alive")
			}
			others.alive[node] = false
			if l := sweep(); l.Over || l.Away.IsZero() {
				d.t.Errorf("seen for the first time: over %v, away since %v", l.Over, l.Away)
			}
			c.by = 59 * time.Second
			if l := sweep(); l.Over {
				d.t.Error("its client has a second left")
			}
			c.by = 2 * time.Minute
			if l := sweep(); !l.Over {
				d.t.Error("it can still be resumed")
			}
			if l, err := takeOne(d.t.Context(), d.db, stream.Key{1}, d.ref.JID.Bare(), "m", 9, false); err != nil || l == nil || !l.Over {
				d.t.Errorf("%+v, %v", l, err)
			}
		})
	}
}

// So do those that a node which lives has paused, because it drains, and no others
// of it.
func TestSessionsThatANodeHasPausedEnd(t *testing.T) {
	eachNode(t, func(d *desk, others *nodes) {
		c := &ahead{}
		d.env.Clock = c
		over := func() bool {
			d.t.Helper()
			if err := d.sweepOnce(d.t.Context()); err != nil {
				d.t.Fatal(err)
			}
			return d.row().Over
		}
		d.set(`away = $1`, time.Now().UnixMicro())
		c.by = 2 * time.Minute
		if over() {
			d.t.Error("its node sees to it")
		}
		d.set(`given = 1`)
		c.by = 59 * time.Second
		if over() {
			d.t.Error("its client has a second left")
		}
		c.by = 2 * time.Minute
		if !over() {
			d.t.Error("it can still be resumed")
		}
	})
}

// What has waited in the database is shown to its contacts again when it is taken:
// some may have come meanwhile. What comes from a node at once need not be.
func TestWhatHasWaitedIsShownAgain(t *testing.T) {
	for _, waited := range []bool{true, false} {
		eachNode(t, func(d *desk, others *nodes) {
			if waited {
				d.set(`given = 1`)
			}
			others.ask = func(string) error { d.set(`given = 1`); return nil }
			l, err := d.taker(others).Take(d.t.Context(), stream.Key{1}, d.ref.JID.Bare())
			if err != nil || l == nil || l.State.Buried != waited {
				d.t.Errorf("waited %v: %+v, %v", waited, l, err)
			}
		})
	}
}

// It does not go on when the account has another session by then.
func TestWhatHasWaitedIsOverWhenAnotherDeviceIsThere(t *testing.T) {
	eachNode(t, func(d *desk, others *nodes) {
		d.set(`given = 1`)
		others.ask = func(string) error { return nil }
		taker := d.taker(others)
		at, err := d.ref.JID.WithResource("b")
		if err != nil {
			d.t.Fatal(err)
		}
		taker.env.Sessions.Bind(sessions.Ref{Node: "m", Conn: 2, JID: at}, sessions.State{Kind: sessions.Client})
		l, err := taker.Take(d.t.Context(), stream.Key{1}, d.ref.JID.Bare())
		if err != nil || l == nil || !l.Over {
			d.t.Errorf("%+v, %v", l, err)
		}
	})
}

// A session that has begun beside another one does not move, also when that one has
// ended before anything was written down.
func TestASessionThatHasBegunBesideAnotherOneDoesNotMove(t *testing.T) {
	eachNode(t, func(d *desk, _ *nodes) {
		if !d.Moves(d.t.Context(), d.ref) {
			d.t.Error("alone, and does not move")
		}
		at, err := d.ref.JID.WithResource("b")
		if err != nil {
			d.t.Fatal(err)
		}
		other := sessions.Ref{Node: "n", Conn: 2, JID: at}
		d.env.Sessions.Bind(other, sessions.State{Kind: sessions.Client})
		d.Begin(stream.Lasting{Ref: other, Key: stream.Key{2}, Window: time.Minute})
		d.env.Sessions.Unbind(d.ref)
		if d.Moves(d.t.Context(), other) {
			d.t.Error("it moves")
		}
	})
}

// ahead is a clock that runs ahead.
type ahead struct{ by time.Duration }

func (c *ahead) Now() time.Time { return time.Now().Add(c.by) }

func (c *ahead) AfterFunc(d time.Duration, f func()) func() bool { return time.AfterFunc(d, f).Stop }

var errSilent = errors.New("no answer")

// taker is another node's book.
func (d *desk) taker(others *nodes) *book {
	env := d.env
	env.Node, env.Sessions, env.Notices = "m", sessions.NewRegistry(), others
	return newBook(env)
}

// A client that resumes while its node is dead, and still counts as alive, waits
// until that is known and its contacts have been told; then it goes on.
func TestReliability32ResumedBeforeTheLeaseIsOver(t *testing.T) {
	eachNode(t, func(d *desk, others *nodes) {
		told := false
		others.ask = func(string) error {
			if others.asks == 2 {
				others.alive["n"] = false
			}
			return errSilent
		}
		others.buried = func(context.Context) error { told = true; return nil }
		l, err := d.taker(others).Take(d.t.Context(), stream.Key{1}, d.ref.JID.Bare())
		if err != nil || l == nil || l.Over || !l.State.Buried {
			d.t.Fatalf("%+v, %v", l, err)
		}
		if !told || others.asks != 2 {
			d.t.Errorf("told %v, asked %d times", told, others.asks)
		}
	})
}

// One that could not be asked for a moment gives the session when it can; one
// that answers, and has not given it, keeps it.
func TestResumedFromANodeThatWasSilent(t *testing.T) {
	eachNode(t, func(d *desk, others *nodes) {
		others.ask = func(string) error {
			if others.asks == 1 {
				return errSilent
			}
			d.set(`given = 1`)
			return nil
		}
		l, err := d.taker(others).Take(d.t.Context(), stream.Key{1}, d.ref.JID.Bare())
		if err != nil || l == nil || others.asks != 2 {
			d.t.Fatalf("%+v, %v after %d", l, err, others.asks)
		}
	})
	eachNode(t, func(d *desk, others *nodes) {
		others.ask = func(string) error { return nil }
		if l, err := d.taker(others).Take(d.t.Context(), stream.Key{1}, d.ref.JID.Bare()); err != nil || l != nil {
			d.t.Fatalf("%+v, %v", l, err)
		}
	})
}

// TestReliability32ResumedWhileTheNodeStartsAgain: its next life is there before who
// resumes elsewhere has heard of the end of the one that had the session. Nobody
// asks that one in vain: the session is the dead one's, or the new one gives it.
func TestReliability32ResumedWhileTheNodeStartsAgain(t *testing.T) {
	t.Run("not taken yet", func(t *testing.T) {
		eachNode(t, func(d *desk, others *nodes) {
			others.lives = map[string]uint64{}
			others.ask = func(string) error { others.lives["n"] = 8; return nil } // it is gone, so nobody waits for it
			others.buried = func(context.Context) error { return nil }
			l, err := d.taker(others).Take(d.t.Context(), stream.Key{1}, d.ref.JID.Bare())
			if err != nil || l == nil || l.Over || others.asks != 1 {
				d.t.Fatalf("%+v, %v after %d", l, err, others.asks)
			}
		})
	})
	t.Run("taken", func(t *testing.T) {
		eachNode(t, func(d *desk, others *nodes) {
			others.lives = map[string]uint64{}
			others.ask = func(string) error {
				if others.asks == 1 {
					others.lives["n"] = 8
					d.set(`life = 8`)
					return nil
				}
				d.set(`given = 1`)
				return nil
			}
			others.buried = func(context.Context) error { return nil }
			l, err := d.taker(others).Take(d.t.Context(), stream.Key{1}, d.ref.JID.Bare())
			if err != nil || l == nil || l.Over || others.asks != 2 {
				d.t.Fatalf("%+v, %v after %d", l, err, others.asks)
			}
		})
	})
}
