package archive

import (
	"context"
	"errors"
	"testing"

	"parley/processor"
	"parley/router/sessions"
	"parley/storage"
	"parley/storage/storagetest"
)

// silent is a database that answers no question.
type silent struct{ storage.DB }

func (silent) QueryRow(context.Context, string, ...any) storage.Row { return noRow{} }

type noRow struct{}

func (noRow) Scan(...any) error { return errors.New("no answer") }

// TestReliability31ReplayGoesOnWithoutItsOwner: a client that takes a page while
// the database cannot say whose archive it is gets the next one all the same: it
// tells only once, and until its replay has ended it gets nothing live.
func TestReliability31ReplayGoesOnWithoutItsOwner(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		f := newFixture(t, db, *defaults())
		f.env.Sessions = sessions.NewRegistry()
		f.replays = newReplays(f.part)
		ref := sessions.Ref{Node: "n", Conn: 1, JID: juliet}
		re := &replay{ref: ref, wait: 7}
		f.replays.open[ref] = re
		f.owners.db = silent{db}
		if _, err := f.acked(t.Context(), processor.Rows{Session: ref, IDs: []int64{7}}); err == nil {
			t.Error("nobody hears that the rows are not marked")
		}
		f.tasks.Wait()
		if re.wait != 0 {
			t.Error("it waits for a page that its client has taken")
		}
	})
}
