package resumption

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/router/sessions"
	"parley/storage"
	"parley/storage/storagetest"
	"parley/stream"
)

// meddled is a database that something happens at before a set is committed.
type meddled struct {
	storage.DB
	before func() error
}

func (d *meddled) Commit(ctx context.Context, w *storage.WriteSet) error {
	if f := d.before; f != nil {
		d.before = nil
		if err := f(); err != nil {
			return err
		}
	}
	return d.DB.Commit(ctx, w)
}

// desk is a book with one session in it.
type desk struct {
	*book
	t   *testing.T
	db  *meddled
	ref sessions.Ref
}

func eachDesk(t *testing.T, f func(d *desk)) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) { f(newDesk(t, db, nil)) })
}

// newDesk is a node's; others nil: it is alone.
func newDesk(t *testing.T, db storage.DB, others plugins.Notices) *desk {
	t.Helper()
	if err := db.Migrate(t.Context(), Name, migrations); err != nil {
		t.Fatal(err)
	}
	d := &desk{t: t, db: &meddled{DB: db}, ref: sessions.Ref{Node: "n", Conn: 1, JID: jid.MustParse("romeo@localhost/a")}}
	env := plugins.Env{Node: "n", DB: d.db, Sessions: sessions.NewRegistry(), Clock: plugins.SystemClock{}, Log: slog.New(slog.DiscardHandler), Notices: others}
	d.book = newBook(env)
	d.keepers.Add(1)
	d.fronts.Add(1)
	env.Sessions.Bind(d.ref, sessions.State{Kind: sessions.Client})
	d.Begin(stream.Lasting{Ref: d.ref, Key: stream.Key{1}, Window: time.Minute})
	d.write()
	return d
}

func (d *desk) write() {
	d.t.Helper()
	if err := d.flush(d.t.Context()); err != nil {
		d.t.Fatal(err)
	}
}

// row is what the next process would find.
func (d *desk) row() left {
	d.t.Helper()
	all, err := storage.All(d.t.Context(), d.db, scanLeft, selectLeft)
	if err != nil || len(all) != 1 {
		d.t.Fatalf("%d rows, %v", len(all), err)
	}
	return all[0]
}

// What changes while the row is being written goes into the next one, also
// when the session's state in the house is as it was.
func TestChangesDuringAWriteAreWritten(t *testing.T) {
	eachDesk(t, func(d *desk) {
		since := time.UnixMicro(1_000_000)
		d.env.Sessions.Change(d.ref, func(st *sessions.State) { st.Priority = 1 })
		d.Keep(d.ref, 1, false, nil)
		d.db.before = func() error { d.Away(d.ref, since); return nil }
		d.write()
		d.write()
		if at := d.row().Away; !at.Equal(since) {
			d.t.Errorf("away since %v, want %v", at, since)
		}
		d.env.Sessions.Change(d.ref, func(st *sessions.State) { st.Priority = 2 })
		d.Keep(d.ref, 2, false, nil)
		d.db.before = func() error {
			d.Pause(d.ref, &stream.Outbound{Acked: 3, Rows: []int64{7}})
			return nil
		}
		d.write()
		d.write()
		if sent := d.row().Sent; sent == nil || sent.Acked != 3 || len(sent.Rows) != 1 {
			d.t.Errorf("sent %+v", sent)
		}
	})
}

// What went into a commit that failed goes into the next one.
func TestStateOfAFailedCommitIsWritten(t *testing.T) {
	eachDesk(t, func(d *desk) {
		d.env.Sessions.Change(d.ref, func(st *sessions.State) { st.Carbons = true })
		d.Keep(d.ref, 1, false, nil)
		var w storage.WriteSet
		if !d.Keep(d.ref, 2, true, &w) {
			d.t.Fatal("not kept")
		}
		d.Kept(d.ref, 2, false)
		d.Keep(d.ref, 2, false, nil) // refused
		d.write()
		if l := d.row(); !l.State.Carbons || l.H != 2 {
			d.t.Errorf("carbons %v, h %d", l.State.Carbons, l.H)
		}
		// The same by way of a flush that fails.
		d.env.Sessions.Change(d.ref, func(st *sessions.State) { st.Carbons = false })
		d.Keep(d.ref, 3, false, nil)
		d.db.before = func() error { return errors.New("away") }
		if d.flush(d.t.Context()) == nil {
			d.t.Fatal("no error")
		}
		d.write()
		if l := d.row(); l.State.Carbons || l.H != 3 {
			d.t.Errorf("carbons %v, h %d", l.State.Carbons, l.H)
		}
	})
}

// What a batch is committing is not done yet, whoever writes the row meanwhile (D1).
func TestHIsNotAheadOfWhatIsBeingCommitted(t *testing.T) {
	eachDesk(t, func(d *desk) {
		d.Keep(d.ref, 1, false, nil) // a chat state: the row is to be written
		var w storage.WriteSet
		if !d.Keep(d.ref, 2, true, &w) {
			d.t.Fatal("not kept")
		}
		since := time.UnixMicro(1_000_000)
		d.Away(d.ref, since)
		d.write()
		if l := d.row(); l.H != 1 {
			d.t.Errorf("h %d, and the second is not stored", l.H)
		}
		if err := d.Sync(d.t.Context(), d.ref, 1); err != nil {
			d.t.Fatal(err)
		}
		if l := d.row(); l.H != 1 {
			d.t.Errorf("h %d after Sync, and the second is not stored", l.H)
		}
		if err := d.env.DB.Commit(d.t.Context(), &w); err != nil {
			d.t.Fatal(err)
		}
		d.Kept(d.ref, 2, true)
		if l := d.row(); l.H != 2 {
			d.t.Errorf("h %d, and two are stored", l.H)
		}
		d.write() // the batch may have been first
		if l := d.row(); !l.Away.Equal(since) {
			d.t.Errorf("away since %v, want %v", l.Away, since)
		}
	})
}

// What a flush wants to add while a batch commits is not lost when the batch is
// first.
func TestChangesBehindABatchAreWritten(t *testing.T) {
	eachDesk(t, func(d *desk) {
		d.Keep(d.ref, 1, false, nil)
		var w storage.WriteSet
		if !d.Keep(d.ref, 2, true, &w) {
			d.t.Fatal("not kept")
		}
		since := time.UnixMicro(1_000_000)
		d.Away(d.ref, since)
		d.db.before = func() error { return d.db.DB.Commit(d.t.Context(), &w) }
		d.write()
		d.Kept(d.ref, 2, true)
		d.write()
		if l := d.row(); l.H != 2 || !l.Away.Equal(since) {
			d.t.Errorf("h %d, away since %v", l.H, l.Away)
		}
	})
}

// A batch that fails is committed message by message, and each tells its own
// place (D1).
func TestHOfAFailedBatchGoesMessageByMessage(t *testing.T) {
	eachDesk(t, func(d *desk) {
		keep := func(seq uint64, stored bool) {
			d.t.Helper()
			var w storage.WriteSet
			if !d.Keep(d.ref, seq, true, &w) {
				d.t.Fatal("not kept")
			}
			if stored {
				if err := d.env.DB.Commit(d.t.Context(), &w); err != nil {
					d.t.Fatal(err)
				}
			}
			d.Kept(d.ref, seq, stored)
		}
		keep(3, false)
		keep(1, true)
		d.write()
		if l := d.row(); l.H != 1 {
			d.t.Errorf("h %d, and one is stored", l.H)
		}
	})
}

// The row counts no refusal, nor what is behind it, before the client has the error
// (D1): not by a batch, not by a flush, not in the end.
func TestRefusalsAreWrittenWhenTheyAreKnown(t *testing.T) {
	eachNode(t, func(d *desk, _ *nodes) {
		t := d.t
		batch := func(seq uint64) bool {
			t.Helper()
			var w storage.WriteSet
			if !d.Keep(d.ref, seq, true, &w) {
				t.Fatal("not kept")
			}
			if err := d.env.DB.Commit(t.Context(), &w); err != nil {
				t.Fatal(err)
			}
			return d.Kept(d.ref, seq, true)
		}
		h := func(want uint64) {
			t.Helper()
			if l := d.row(); l.H != want {
				t.Errorf("h %d, want %d", l.H, want)
			}
		}
		if !batch(1) {
			t.Error("the first one does not last")
		}
		d.Refused(d.ref, 2)
		if batch(3) {
			t.Error("what is behind a refusal lasts")
		}
		h(1)
		d.Keep(d.ref, 4, false, nil)
		d.write()
		h(1)
		d.Heard(d.ref, 2)
		d.write()
		h(4)
		d.Refused(d.ref, 5)
		d.Keep(d.ref, 6, false, nil)
		d.write()
		h(4)
		if err := d.Sync(t.Context(), d.ref, 5); err != nil { // the streamer knows that the client has the error
			t.Fatal(err)
		}
		h(6)
		d.Refused(d.ref, 7)
		d.Keep(d.ref, 8, false, nil)
		d.End(d.ref)
		d.write()
		h(6)
		if l := d.row(); !l.Over {
			t.Error("not over")
		}
	})
}

// Across a seam the streamer may have ended before the house hears that a
// session goes on later.
func TestPausedSessionsOutliveTheStreamer(t *testing.T) {
	eachDesk(t, func(d *desk) {
		d.Pause(d.ref, &stream.Outbound{})
		if err := d.leave(d.t.Context(), &d.fronts); err != nil {
			d.t.Fatal(err)
		}
		e, _ := d.env.Sessions.Unbind(d.ref)
		last := *e
		last.Paused = true
		d.ended(&last)
		if err := d.leave(d.t.Context(), &d.keepers); err != nil {
			d.t.Fatal(err)
		}
		if d.row().Sent == nil {
			d.t.Error("what was sent is not known")
		}
	})
}

// While the node that has a session lives, another one has it when that one has
// let it go and not before: else both would go on with it.
func TestRule58ALivingNodeKeepsItsSession(t *testing.T) {
	eachDesk(t, func(d *desk) {
		key, account := stream.Key{1}, d.ref.JID.Bare()
		if l, err := takeOne(t.Context(), d.db, key, account, "m", 0, true); err != nil || l != nil {
			t.Fatalf("taken from a node that has it: %+v, %v", l, err)
		}
		left := d.heldBy(key).left()
		select {
		case <-left:
			t.Fatal("let go")
		default:
		}
		d.Pause(d.ref, nil)
		e, _ := d.env.Sessions.Unbind(d.ref)
		last := *e
		last.Paused = true
		d.ended(&last)
		<-left
		d.write()
		if l, err := takeOne(t.Context(), d.db, key, account, "m", 0, true); err != nil || l == nil || l.Over || l.State.Buried {
			t.Fatalf("not taken: %+v, %v", l, err)
		}
		if l := d.row(); l.given {
			t.Fatal("the one who has it now has let it go")
		}
		if l, err := takeOne(t.Context(), d.db, key, account, "k", 0, false); err != nil || l == nil || !l.State.Buried {
			t.Fatalf("contacts of a session that was taken from a dead node may have been told that it has gone: %+v, %v", l, err)
		}
	})
}

// Who waits for a session's end flushes at once, so it is told when the end is on the
// list of what is to be written, not before.
func TestRule58WhoWaitsForASessionFindsItWritten(t *testing.T) {
	eachDesk(t, func(d *desk) {
		e, _ := d.env.Sessions.Find(d.ref.JID)
		last := *e
		last.Buried = true
		left := d.find(d.ref).left()
		d.book.mu.Lock() // nothing gets on the list
		go d.ended(&last)
		select {
		case <-left:
			t.Error("told of an end that a flush would not find")
		case <-time.After(50 * time.Millisecond):
		}
		d.book.mu.Unlock()
		<-left
		d.write()
		if !d.row().given {
			t.Error("the session cannot be taken")
		}
	})
}
