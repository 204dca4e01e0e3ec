package bulk

import (
	"io/fs"
	"strings"
	"testing"

	"parley/plugins/accounts"
	"parley/plugins/archive"
	"parley/storage"
	"parley/storage/storagetest"
)

// TestRows: the tables hold what the package says they do, however many steps
// it took.
func TestRows(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, sdb storage.DB) {
		ctx := t.Context()
		for name, fsys := range map[string]fs.FS{"accounts": accounts.Plugin.Migrations, "archive": archive.Plugin.Migrations} {
			if err := sdb.Migrate(ctx, name, fsys); err != nil {
				t.Fatal(err)
			}
		}
		db := &DB{DB: sdb}
		for _, step := range [][2]int{{0, generation}, {generation, 3 * generation}} {
			if err := db.Archive(ctx, "localhost", step[0], step[1]); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Accounts(ctx, "localhost", "secret", Owner, 0, 3); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			sql  string
			args []any
			want int
		}{
			{`SELECT COUNT(*) FROM archive`, nil, 3 * generation},
			{`SELECT COUNT(*) FROM archive_owner`, nil, 1 + Owners(3*generation)},
			{`SELECT COUNT(*) FROM archive a JOIN archive_owner o ON o.id = a.owner WHERE o.jid = $1`, []any{"large@localhost"}, 3 * generation / 2},
			{`SELECT COUNT(*) FROM archive a JOIN archive_owner o ON o.id = a.owner WHERE o.jid = $1`, []any{"owner150@localhost"}, rowsPerOwner},
			{`SELECT COUNT(*) FROM archive WHERE contact = $1 AND peer = $2`, []any{"rare@localhost", peerKey("rare@localhost")}, RareRows},
			{`SELECT COUNT(*) FROM (SELECT owner FROM archive GROUP BY owner HAVING COUNT(*) = $1) x`, []any{rowsPerOwner}, Owners(3 * generation)},
			{`SELECT COUNT(*) FROM account`, nil, 3},
			{`SELECT COUNT(*) FROM account_key`, nil, 6},
		} {
			var n int
			if err := db.QueryRow(ctx, c.sql, c.args...).Scan(&n); err != nil || n != c.want {
				t.Errorf("%s: %d, %v; not %d", c.sql, n, err, c.want)
			}
		}
	})
}

// TestSame: a row is the same in every run.
func TestSame(t *testing.T) {
	if got := string(stored(7, "a@b", "c@b")); !strings.HasPrefix(got, "<message xmlns='jabber:client' from='c@b/phone' to='a@b' type='chat' id='m7'><body>But soft") {
		t.Errorf("stored %s", got)
	}
	seen := map[int]bool{}
	for i := range 2 * generation {
		owner, contact := row(i)
		if contact == Rare && (owner != 0 || i >= generation) {
			t.Errorf("row %d is %d's with somebody of long ago", i, owner)
		}
		seen[owner] = true
	}
	if len(seen) != 1+Owners(2*generation) {
		t.Errorf("%d owners have rows, not %d", len(seen), 1+Owners(2*generation))
	}
}
