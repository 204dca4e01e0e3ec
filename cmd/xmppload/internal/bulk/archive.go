package bulk

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"time"

	"parley/storage"
)

// The rows of an archive, in the order of time: every second one belongs to
// one owner (Large), the others to people who have rowsPerOwner each. A
// generation of these talks at the same time, so that what one of them has lies
// scattered, as it does in life.
const (
	generation    = 10_000 // rows, half of them Large's
	rowsPerOwner  = 100
	perGeneration = generation / 2 / rowsPerOwner
	contacts      = 50         // of Large, in turn
	RareRows      = 20         // Large's with Rare, all of them among the first
	apart         = 10_000_000 // microseconds between rows: Large has 4,320 a day
)

// firstMoment is when the first row was written, in microseconds: ids are
// moments.
const firstMoment = int64(1_700_000_000_000_000)

// When is the moment of a row.
func When(row int) time.Time { return time.UnixMicro(firstMoment + int64(row)*apart).UTC() }

// Owners is how many owners there are among the first rows, Large aside.
func Owners(rows int) int { return rows / generation * perGeneration }

// Owner 0 is Large, 1 and up are the others.
func Owner(n int) string {
	if n == 0 {
		return "large"
	}
	return fmt.Sprintf("owner%d", n)
}

// Contact is one of Large's contacts; Rare is somebody of long ago.
func Contact(n int) string { return fmt.Sprintf("contact%d", n%contacts) }

// Rare is the name of that one.
const Rare = "rare"

// row is whose a row is and whom it is about.
func row(i int) (owner int, contact string) {
	n := i / 2
	if i%2 == 1 {
		return 1 + i/generation*perGeneration + n%perGeneration, Contact(n / perGeneration)
	}
	if i < generation && n%(generation/2/RareRows) == 1 {
		return 0, Rare
	}
	return 0, Contact(n)
}

var (
	insertOwner = storage.Stmt{Name: "bulk.owner", SQL: `INSERT INTO archive_owner (jid) VALUES ($1) ON CONFLICT DO NOTHING`, Idempotent: true}
	insertRow   = storage.Stmt{
		Name: "bulk.archive", SQL: `INSERT INTO archive (owner, id, peer, contact, resource, stanza) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`, Idempotent: true,
	}
	insertDay = storage.Stmt{Name: "bulk.day", SQL: `INSERT INTO archive_day (owner, peer, day) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`, Idempotent: true}
)

// Archive writes rows from to to-1; both are whole generations.
func (db *DB) Archive(ctx context.Context, domain string, from, to int) error {
	w := &writer{DB: db}
	first := 1 + Owners(from)
	if from == 0 {
		first = 0
	}
	if err := w.each(ctx, "owners", first, 1+Owners(to), func(n int) error {
		return w.add(ctx, &insertOwner, Owner(n)+"@"+domain)
	}); err != nil {
		return err
	}
	ids, err := db.ownerIDs(ctx, domain)
	if err != nil {
		return err
	}
	noted := map[[2]int64]bool{} // of today
	var today int64
	if err := w.each(ctx, "archive rows", from, to, func(i int) error {
		n, contact := row(i)
		owner, id, jid := ids[Owner(n)+"@"+domain], When(i).UnixMicro(), contact+"@"+domain
		key := [2]int64{owner, peerKey(jid)}
		if day := id / (24 * time.Hour).Microseconds(); day != today || !noted[key] {
			if day != today {
				clear(noted)
			}
			today, noted[key] = day, true
			if err := w.add(ctx, &insertDay, key[0], key[1], day); err != nil {
				return err
			}
		}
		return w.add(ctx, &insertRow, owner, id, key[1], jid, "phone", stored(i, Owner(n)+"@"+domain, jid))
	}); err != nil {
		return err
	}
	return db.settle(ctx)
}

// settle does what Postgres does by itself minutes later, and would then do
// while somebody measures.
func (db *DB) settle(ctx context.Context) error {
	if db.Dialect() != storage.Postgres {
		return nil
	}
	for _, sql := range []string{`VACUUM ANALYZE archive`, `VACUUM ANALYZE archive_day`, `VACUUM ANALYZE archive_owner`, `VACUUM ANALYZE account`, `VACUUM ANALYZE account_key`, `CHECKPOINT`} {
		if _, err := db.Exec(ctx, sql); err != nil {
			return fmt.Errorf("%s: %w", sql, err)
		}
	}
	return nil
}

func (db *DB) ownerIDs(ctx context.Context, domain string) (map[string]int64, error) {
	ids := map[string]int64{}
	rows, err := db.Query(ctx, `SELECT id, jid FROM archive_owner`)
	if err != nil {
		return nil, fmt.Errorf("owners: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		var jid string
		if err := rows.Scan(&id, &jid); err != nil {
			return nil, fmt.Errorf("owners: %w", err)
		}
		ids[jid] = id
	}
	return ids, rows.Err()
}

// stored is a message as plugins/archive keeps it.
func stored(i int, owner, contact string) []byte {
	return fmt.Appendf(nil, "<message xmlns='jabber:client' from='%s/phone' to='%s' type='chat' id='m%d'><body>%s %s</body></message>",
		contact, owner, i, "But soft, what light through yonder window breaks? It is the east, and Juliet is the sun. No. "[:60+i%30], Word(i/2))
}

// Frequent is a word that every message has.
const Frequent = "window"

// Word is one that every 200th of Large's has, or of the others'.
func Word(n int) string { return fmt.Sprintf("w%dw", n%200) }

// peerKey is that of plugins/archive.
func peerKey(jid string) int64 {
	h := sha256.Sum256([]byte(jid))
	return int64(binary.BigEndian.Uint64(h[:8]))
}
