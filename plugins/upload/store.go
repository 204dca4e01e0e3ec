package upload

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"parley/plugins"
	"parley/storage"
	"parley/storage/atrest"
	"parley/storage/blob"
)

// store is the tables.
type store struct{ env plugins.Env }

// What of them is encrypted, when that is configured: names and addresses of
// files, and the keys of their contents.
var (
	sealedFiles   = atrest.Table{Name: "upload_file", Row: []string{"id"}, Content: "what", KeyID: "key_id"}
	sealedBlobs   = atrest.Table{Name: "upload_blob", Row: []string{"id"}, Content: "secret", KeyID: "key_id"}
	sealedSecrets = atrest.Table{Name: "upload_secret", Row: []string{"id"}, Content: "secret", KeyID: "key_id"}
)

const (
	sqlColumns = `id, owner, purpose, type, shown, size, state, ends, until, keep, COALESCE(blob, 0), what, key_id`
	sqlByToken = `SELECT ` + sqlColumns + ` FROM upload_file WHERE token = $1`
	sqlInsert  = `INSERT INTO upload_file (id, token, owner, purpose, type, shown, size, state, ends, until, keep, what, key_id)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`
	sqlOpen   = `SELECT COUNT(*), COALESCE(MIN(ends), 0) FROM upload_file WHERE owner = $1 AND state < $2 AND ends > $3`
	sqlUsed   = `SELECT COALESCE(CAST(SUM((size + 4095) / 4096 * 4096) AS bigint), 0) FROM upload_file WHERE owner = $1 AND purpose = $2 AND (ends = 0 OR ends > $3)`
	sqlEnding = `SELECT size, ends FROM upload_file WHERE owner = $1 AND purpose = $2 AND ends > $3 ORDER BY ends, id LIMIT 1000`

	sqlClaim   = `UPDATE upload_file SET state = $1, ends = $2 WHERE id = $3 AND state = $4 AND ends > $5`
	sqlRelease = `UPDATE upload_file SET state = $1, ends = $2 WHERE id = $3 AND state = $4 AND ends = $5`
	sqlStored  = `UPDATE upload_file SET state = $1, ends = $2, type = $3, shown = $4, blob = $5 WHERE id = $6 AND state = $7 AND ends = $8`
	sqlRefer   = `UPDATE upload_blob SET refs = refs + $1 WHERE id = $2`
	sqlDelete  = `DELETE FROM upload_file WHERE id = $1 AND owner = $2 RETURNING COALESCE(blob, 0)`

	sqlBlob       = `SELECT id, object, size, secret, key_id, missing, hash FROM upload_blob WHERE id = $1`
	sqlSame       = `SELECT id, object, missing FROM upload_blob WHERE hash = $1`
	sqlInsertBlob = `INSERT INTO upload_blob (id, hash, object, size, refs, missing, secret, key_id) VALUES ($1, $2, $3, $4, 0, 0, $5, $6)`
	sqlReplace    = `UPDATE upload_blob SET object = $1, secret = $2, key_id = $3, missing = 0 WHERE id = $4`
)

// micros is a time in the database; 0 for the zero one.
func micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func fromMicros(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMicro(n)
}

// charge is what a file of a size counts for: a row costs something, however
// small its file is.
func charge(size int64) int64 { return (size + 4095) / 4096 * 4096 }

func (s *store) highest(ctx context.Context) (n int64, err error) {
	if err := s.env.DB.QueryRow(ctx, `SELECT COALESCE(MAX(id), 0) FROM upload_file`).Scan(&n); err != nil {
		return 0, fmt.Errorf("files: %w", err)
	}
	return n, nil
}

// hashKey is the key of the hashes; the first call makes it.
func (s *store) hashKey(ctx context.Context) ([]byte, error) {
	const id = 1
	fresh := make([]byte, 32)
	_, _ = rand.Read(fresh) // never fails (crypto/rand)
	stored, key := s.env.AtRest.Seal(&sealedSecrets, fresh, id)
	if _, err := s.env.DB.Exec(ctx, `INSERT INTO upload_secret (id, secret, key_id) VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING`, id, stored, key); err != nil {
		return nil, fmt.Errorf("key of hashes: %w", err)
	}
	if err := s.env.DB.QueryRow(ctx, `SELECT secret, key_id FROM upload_secret WHERE id = $1`, id).Scan(&stored, &key); err != nil {
		return nil, fmt.Errorf("key of hashes: %w", err)
	}
	return s.env.AtRest.Open(&sealedSecrets, key, stored, id)
}

// reserve writes a slot down when the account may have it; the error is a
// *stanza.Error when it may not.
func (s *store) reserve(ctx context.Context, f *File, l limits) error {
	what, key := s.env.AtRest.Seal(&sealedFiles, append(f.token[:], f.Name...), f.ID)
	now := micros(l.now)
	return s.env.DB.Tx(ctx, func(tx storage.Tx) error {
		var open, next, used int64
		if err := tx.QueryRow(ctx, sqlOpen, f.Owner, stateStored, now).Scan(&open, &next); err != nil {
			return fmt.Errorf("open slots: %w", err)
		}
		if open >= int64(l.slots) {
			return tooMany(int(open), fromMicros(next))
		}
		if err := tx.QueryRow(ctx, sqlUsed, f.Owner, f.Purpose, now).Scan(&used); err != nil {
			return fmt.Errorf("quota: %w", err)
		}
		if need := used + charge(f.Size) - l.quota; need > 0 {
			next, err := s.freed(ctx, tx, f, now, need)
			if err != nil {
				return err
			}
			return overQuota(used, l.quota, next)
		}
		_, err := tx.Exec(ctx, sqlInsert, f.ID, f.token.hash(), f.Owner, f.Purpose, f.Type, false, f.Size, stateSlot, micros(f.ends), micros(f.until), f.keep.Microseconds(), what, key)
		return err
	})
}

// freed is when so much of what the account has for the purpose will be over;
// zero: that is not known.
func (s *store) freed(ctx context.Context, tx storage.Tx, f *File, now, need int64) (time.Time, error) {
	type ending struct{ size, ends int64 }
	all, err := storage.All(ctx, tx, func(r storage.Row) (e ending, err error) {
		err = r.Scan(&e.size, &e.ends)
		return e, err
	}, sqlEnding, f.Owner, f.Purpose, now)
	if err != nil {
		return time.Time{}, fmt.Errorf("quota: %w", err)
	}
	for _, e := range all {
		if need -= charge(e.size); need <= 0 {
			return fromMicros(e.ends), nil
		}
	}
	return time.Time{}, nil
}

// scan reads the columns of sqlColumns.
func (s *store) scan(r storage.Row) (*File, error) {
	f := &File{}
	var ends, until, keep, key int64
	var what []byte
	if err := r.Scan(&f.ID, &f.Owner, &f.Purpose, &f.Type, &f.shown, &f.Size, &f.state, &ends, &until, &keep, &f.blob, &what, &key); err != nil {
		return nil, err
	}
	f.ends, f.until, f.keep = fromMicros(ends), fromMicros(until), time.Duration(keep)*time.Microsecond
	what, err := s.env.AtRest.Open(&sealedFiles, key, what, f.ID)
	if err != nil {
		return nil, err
	}
	if len(what) < len(f.token) {
		return nil, fmt.Errorf("file %d: %w", f.ID, atrest.ErrDamaged)
	}
	f.token, f.Name = token(what[:len(f.token)]), string(what[len(f.token):])
	return f, nil
}

// find returns the file or slot with a token; nil: there is none.
func (s *store) find(ctx context.Context, t token) (*File, error) {
	f, err := s.scan(s.env.DB.QueryRow(ctx, sqlByToken, t.hash()))
	if errors.Is(err, storage.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("file: %w", err)
	}
	return f, nil
}

// claim takes a slot for one upload, which has until then; false: somebody has it
// already, or it is over.
func (s *store) claim(ctx context.Context, f *File, now, until time.Time) (bool, error) {
	n, err := s.env.DB.Exec(ctx, sqlClaim, stateClaimed, micros(until), f.ID, stateSlot, micros(now))
	if err != nil {
		return false, fmt.Errorf("slot: %w", err)
	}
	return n == 1, nil
}

// release gives back what was claimed until then.
func (s *store) release(ctx context.Context, f *File, until time.Time) error {
	if _, err := s.env.DB.Exec(ctx, sqlRelease, stateSlot, micros(f.ends), f.ID, stateClaimed, micros(until)); err != nil {
		return fmt.Errorf("slot: %w", err)
	}
	return nil
}

// content is a row of upload_blob.
type content struct {
	id      int64
	hash    []byte
	object  blob.Key
	size    int64
	key     atrest.FileKey // nil: not encrypted
	missing bool
}

// stored says that what was claimed until then is there: f has the type and end
// that it is to have. Content that is there already is used in the place of c, and
// what need not be kept in the store comes back as spare. The error is
// storage.ErrStale when the claim is over.
func (s *store) stored(ctx context.Context, f *File, claimed time.Time, c *content) (spare blob.Key, err error) {
	secret, key := s.env.AtRest.Seal(&sealedBlobs, c.key, c.id)
	err = s.env.DB.Tx(ctx, func(tx storage.Tx) error {
		id, missing, object := c.id, int64(0), ""
		switch err := tx.QueryRow(ctx, sqlSame, c.hash).Scan(&id, &object, &missing); {
		case errors.Is(err, storage.ErrNoRows):
			id, spare = c.id, blob.Key{}
			if _, err := tx.Exec(ctx, sqlInsertBlob, id, c.hash, c.object.String(), c.size, secret, key); err != nil {
				return err
			}
		case err != nil:
			return err
		case missing != 0: // what was lost is back
			secret, key := s.env.AtRest.Seal(&sealedBlobs, c.key, id)
			if _, err := tx.Exec(ctx, sqlReplace, c.object.String(), secret, key, id); err != nil {
				return err
			}
			spare, _ = blob.ParseKey(object)
		default:
			spare = c.object
		}
		if _, err := tx.Exec(ctx, sqlRefer, 1, id); err != nil {
			return err
		}
		n, err := tx.Exec(ctx, sqlStored, stateStored, micros(f.ends), f.Type, f.shown, id, f.ID, stateClaimed, micros(claimed))
		if err == nil && n == 0 {
			err = storage.ErrStale
		}
		return err
	})
	if err != nil {
		return blob.Key{}, fmt.Errorf("file: %w", err)
	}
	return spare, nil
}

// content reads what a file's content is; nil: it is gone.
func (s *store) content(ctx context.Context, id int64) (*content, error) {
	c := &content{}
	var object string
	var secret []byte
	var key, missing int64
	err := s.env.DB.QueryRow(ctx, sqlBlob, id).Scan(&c.id, &object, &c.size, &secret, &key, &missing, &c.hash)
	if errors.Is(err, storage.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("content: %w", err)
	}
	if c.key, err = s.env.AtRest.Open(&sealedBlobs, key, secret, c.id); err != nil {
		return nil, err
	}
	c.object, _ = blob.ParseKey(object)
	c.missing = missing != 0
	return c, nil
}

// remove deletes a file or slot; false: there is none, or it is not the owner's.
// What it contains goes with the next sweep when nobody else has it.
func (s *store) remove(ctx context.Context, owner string, id int64) (found bool, err error) {
	err = s.env.DB.Tx(ctx, func(tx storage.Tx) error {
		found = false
		var content int64
		switch err := tx.QueryRow(ctx, sqlDelete, id, owner).Scan(&content); {
		case errors.Is(err, storage.ErrNoRows):
			return nil
		case err != nil:
			return err
		}
		found = true
		if content == 0 {
			return nil
		}
		_, err := tx.Exec(ctx, sqlRefer, -1, content)
		return err
	})
	return found, err
}
