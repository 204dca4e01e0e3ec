package ledger_test

import (
	mrand "math/rand/v2"
	"syscall"
	"time"
)

// enough is how many acknowledgements show that life goes on.
func enough() int { return len(cast) * 10 }

// victim is a node at random, and its life.
func (h *nodes) victim(random *mrand.Rand) (i int, l *life) {
	i = random.IntN(len(h.all))
	return i, h.all[i].lives()
}

// over waits until a life that cannot go on has ended by itself.
func over(w *world, l *life, who string) time.Time {
	w.t.Helper()
	select {
	case <-l.over:
	case <-time.After(patience):
		w.t.Fatalf("a node that was %s for longer than its lease goes on", who)
	}
	return time.Now()
}

// killNode is kill -9 of one node, which comes back when its lease has run out
// (reliability row 32).
func killNode(tn *town) fault {
	return func(w *world, random *mrand.Rand) time.Time {
		w.t.Helper()
		after(random, time.Second)
		i, _ := tn.nodes.victim(random)
		s := tn.nodes.all[i]
		m := w.book.now()
		began := time.Now()
		s.kill()
		w.views.stir()
		w.progress("life without the node", m, enough())
		w.views.settle(began, i) // a dead node's sessions are gone, wherever one looks
		if err := s.start(); err != nil {
			w.t.Fatal(err)
		}
		return began
	}
}

// freezeNode stops a node for longer than its lease: the others take it for
// dead, and it has to know when it goes on. It ends by itself.
func freezeNode(tn *town) fault {
	return func(w *world, random *mrand.Rand) time.Time {
		w.t.Helper()
		after(random, time.Second)
		_, l := tn.nodes.victim(random)
		began := time.Now()
		if err := syscall.Kill(l.cmd.Process.Pid, syscall.SIGSTOP); err != nil {
			w.t.Fatal(err)
		}
		w.views.stir()
		time.Sleep(lease + lease/2) // the fault itself
		if err := syscall.Kill(l.cmd.Process.Pid, syscall.SIGCONT); err != nil {
			w.t.Fatal(err)
		}
		over(w, l, "frozen")
		tn.nodes.whole(w)
		return began
	}
}

// restartNATS takes away what nodes hear each other by (reliability row 33).
func restartNATS(tn *town) fault {
	return func(w *world, random *mrand.Rand) time.Time {
		w.t.Helper()
		after(random, time.Second)
		m := w.book.now()
		tn.nats.stop()
		w.views.stir()
		w.progress("life without NATS", m, enough())
		after(random, time.Second)
		began := time.Now()
		tn.nats.start(w.t)
		return began
	}
}

// restartBoth takes away NATS, and the database until a node has ended by itself: the
// others do, too, or are about to.
func restartBoth(tn *town) fault {
	return func(w *world, random *mrand.Rand) time.Time {
		w.t.Helper()
		after(random, time.Second)
		tn.nats.stop()
		w.views.stir()
		after(random, time.Second)
		_, l := tn.nodes.victim(random)
		tn.database.freeze()
		over(w, l, "without its database")
		tn.database.thaw()
		after(random, time.Second)
		began := time.Now()
		tn.nats.start(w.t)
		tn.nodes.whole(w)
		return began
	}
}

// restartDatabase ends Postgres in order and starts it again. Nodes for which
// that takes too long end, and come back.
func restartDatabase(tn *town) fault { return withoutDatabase(tn, tn.database.stop) }

// murderDatabase is kill -9 of Postgres, which recovers from its log.
func murderDatabase(tn *town) fault { return withoutDatabase(tn, tn.database.murder) }

func withoutDatabase(tn *town, end func()) fault {
	return func(w *world, random *mrand.Rand) time.Time {
		w.t.Helper()
		after(random, time.Second)
		w.progress("talk before the fault", w.book.now(), 2*window)
		end()
		w.views.stir()
		after(random, time.Second)
		began := time.Now()
		tn.database.start()
		return began
	}
}

// cutNode takes everything from a node, the database, NATS and its clients, for
// longer than its lease: it ends by itself.
func cutNode(tn *town) fault {
	return func(w *world, random *mrand.Rand) time.Time {
		w.t.Helper()
		after(random, time.Second)
		i, l := tn.nodes.victim(random)
		m := w.book.now()
		tn.network.down(i, mainRoad)
		tn.network.down(i, natsRoad)
		w.views.stir()
		w.progress("life without the node", m, enough())
		dead := over(w, l, "cut off")
		w.views.settle(dead, i)
		began := time.Now()
		tn.network.up(i, mainRoad)
		tn.network.up(i, natsRoad)
		tn.nodes.whole(w)
		return began
	}
}

// cutForAMoment is over before the node is dead.
func cutForAMoment(tn *town) fault {
	return func(w *world, random *mrand.Rand) time.Time {
		w.t.Helper()
		after(random, time.Second)
		i, _ := tn.nodes.victim(random)
		tn.network.down(i, mainRoad)
		tn.network.down(i, natsRoad)
		w.views.stir()
		after(random, lease/3) // the fault itself
		began := time.Now()
		tn.network.up(i, mainRoad)
		tn.network.up(i, natsRoad)
		return began
	}
}

// cutFromNATS lets one node serve its own people alone (reliability row 33).
func cutFromNATS(tn *town) fault {
	return func(w *world, random *mrand.Rand) time.Time {
		w.t.Helper()
		after(random, time.Second)
		i, _ := tn.nodes.victim(random)
		m := w.book.now()
		tn.network.down(i, natsRoad)
		w.views.stir()
		w.progress("life without NATS", m, enough())
		after(random, 2*lease) // below and above what it takes to notice
		began := time.Now()
		tn.network.up(i, natsRoad)
		return began
	}
}
