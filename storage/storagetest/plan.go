package storagetest

import (
	"strings"
	"testing"

	"parley/storage"
)

// Plan is how the database finds what a query asks for, a line for each step.
// Postgres is not allowed to read a whole table where an index would do, which it
// prefers as long as there are few rows.
func Plan(t testing.TB, db storage.DB, query string, args ...any) string {
	t.Helper()
	var plan []string
	err := db.Tx(t.Context(), func(tx storage.Tx) (err error) {
		var id, parent, unused int
		ask, before := "EXPLAIN QUERY PLAN ", []any{&id, &parent, &unused}
		if db.Dialect() == storage.Postgres {
			ask, before = "EXPLAIN ", nil
			if _, err := tx.Exec(t.Context(), "SET LOCAL enable_seqscan = off"); err != nil {
				return err
			}
		}
		plan, err = storage.All(t.Context(), tx, func(r storage.Row) (step string, err error) {
			err = r.Scan(append(before, &step)...)
			return step, err
		}, ask+query, args...)
		return err
	})
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return strings.Join(plan, "\n")
}

// sorts are steps that cost as much as there are rows.
var sorts = []string{"TEMP B-TREE", "Sort", "Seq Scan", "SCAN "}

// Pages fails the test unless the database reads the query's rows in their order
// from an index, so that a page costs no more when there is more behind it.
func Pages(t testing.TB, db storage.DB, query string, args ...any) {
	t.Helper()
	plan := Plan(t, db, query, args...)
	for _, s := range sorts {
		if strings.Contains(plan, s) {
			t.Errorf("%s\n%s", query, plan)
			return
		}
	}
}
