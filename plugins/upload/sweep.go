package upload

import (
	"context"
	"errors"
	"fmt"
	"time"

	"parley/plugins"
	"parley/storage"
	"parley/storage/blob"
)

// sweepKey says which node sweeps. For a moment two may, which does no harm.
const sweepKey = "upload sweep"

// every does one round after the other until ctx is done, on the node whose turn
// it is.
func (s *service) every(ctx context.Context, pause time.Duration, what string, round func(context.Context) error) {
	for plugins.Pause(ctx, s.env.Clock, pause) {
		if !s.env.Owns(sweepKey) {
			continue
		}
		if err := round(ctx); err != nil && ctx.Err() == nil {
			s.env.Log.Warn(what+" is left for the next time", "err", err)
		}
	}
}

func (s *service) sweep(ctx context.Context) {
	s.every(ctx, s.cfg.Sweep, "removing files that have expired", s.sweepOnce)
}

func (s *service) audit(ctx context.Context) {
	s.every(ctx, s.cfg.Audit, "comparing files with the database", s.auditOnce)
}

// atOnce is how many rows one step looks at.
const atOnce = 200

// sweepOnce removes slots and files that are over, and contents that no file has
// any more.
func (s *service) sweepOnce(ctx context.Context) error {
	for {
		over, err := s.store.over(ctx, s.env.Clock.Now(), atOnce)
		if err != nil {
			return err
		}
		for _, f := range over {
			found, err := s.store.remove(ctx, f.Owner, f.ID)
			if err != nil {
				return fmt.Errorf("expired file: %w", err)
			}
			if found {
				s.m.swept.WithLabelValues(map[bool]string{true: "file", false: "slot"}[f.state == stateStored]).Inc()
			}
		}
		if len(over) < atOnce {
			break
		}
	}
	for {
		unused, err := s.store.unused(ctx, atOnce)
		if err != nil {
			return err
		}
		for _, c := range unused {
			if err := s.discard(ctx, c); err != nil {
				return err
			}
		}
		if len(unused) < atOnce {
			return nil
		}
	}
}

// discard removes content that no file has: first the row, so that no new file gets
// it; an object that is left then the audit finds.
func (s *service) discard(ctx context.Context, c *content) error {
	gone, err := s.store.discard(ctx, c.id)
	if err != nil || !gone {
		return err
	}
	s.m.swept.WithLabelValues("content").Inc()
	return errors.Join(s.env.Files.Delete(ctx, c.object), s.env.Files.Delete(ctx, c.object.Variant(thumbnailName)))
}

// grace is how old an object is before it can count as one that nobody knows: its
// row comes after it.
const grace = day

// auditOnce compares what is in the store with what is in the database, both in the
// order of their keys. Objects without a row go. A row without an object is a loss,
// which nobody can undo: it is marked, counted and logged, and stays, since a disk may
// only not be mounted; when the object is back, or somebody uploads the same again,
// it is well.
func (s *service) auditOnce(ctx context.Context) error {
	old := s.env.Clock.Now().Add(-grace)
	if t, ok := s.env.Files.(blob.Tidier); ok {
		if err := t.Tidy(ctx, old); err != nil {
			return err
		}
	}
	have := &objects{ctx: ctx, from: s.env.Files, stranger: func(o blob.Info) error { return s.stranger(ctx, o, old) }}
	lost := 0
	for after, more := "", true; more; {
		page, err := s.store.contents(ctx, after, atOnce)
		if err != nil {
			return err
		}
		for _, c := range page {
			after = c.object.String()
			found, err := have.upTo(after)
			if err != nil {
				return err
			}
			if !found {
				lost++
			}
			if found == c.missing {
				if err := s.mark(ctx, c, !found); err != nil {
					return err
				}
			}
		}
		more = len(page) == atOnce
	}
	s.m.lost.Set(float64(lost))
	_, err := have.upTo("")
	return err
}

// mark notes that content is lost, or found again. It is asked for once more: the
// list was read a while ago.
func (s *service) mark(ctx context.Context, c *content, missing bool) error {
	_, err := s.env.Files.Stat(ctx, c.object)
	switch {
	case err != nil && !errors.Is(err, blob.ErrNotFound):
		return err
	case (err != nil) != missing:
		return nil
	}
	marked, err := s.store.mark(ctx, c, missing, s.env.Clock.Now())
	if err == nil && marked {
		s.env.Log.Error("content of files", "object", c.object.String(), "missing", missing)
	}
	return err
}

// stranger deletes an object that nobody knows, if it is old enough to be that.
func (s *service) stranger(ctx context.Context, o blob.Info, old time.Time) error {
	if !o.Modified.Before(old) {
		return nil
	}
	if known, err := s.store.known(ctx, o.Key.Origin()); err != nil || known {
		return err
	}
	if err := s.env.Files.Delete(ctx, o.Key); err != nil {
		return err
	}
	s.m.swept.WithLabelValues("object").Inc()
	s.env.Log.Info("removed a file that nobody knows", "object", o.Key.String(), "size", o.Size)
	return nil
}

// objects goes through a store in the order of its keys.
type objects struct {
	ctx      context.Context
	from     blob.Store
	stranger func(blob.Info) error // hears of those that nobody has asked for
	page     []blob.Info
	after    blob.Key
	ended    bool
}

// next is the next object; false: there is none.
func (o *objects) next() (blob.Info, bool, error) {
	if len(o.page) == 0 && !o.ended {
		page, err := o.from.List(o.ctx, o.after, atOnce)
		if err != nil {
			return blob.Info{}, false, err
		}
		o.page, o.ended = page, len(page) < atOnce
		if len(page) > 0 {
			o.after = page[len(page)-1].Key
		}
	}
	if len(o.page) == 0 {
		return blob.Info{}, false, nil
	}
	return o.page[0], true, nil
}

// upTo goes on to an object, and reports whether it is there; "": to the end.
func (o *objects) upTo(key string) (found bool, err error) {
	for {
		x, more, err := o.next()
		if err != nil || !more || key != "" && x.Key.String() > key {
			return false, err
		}
		o.page = o.page[1:]
		if x.Key.String() == key {
			return true, nil
		}
		if err := o.stranger(x); err != nil {
			return false, err
		}
	}
}

const (
	sqlOver     = `SELECT id, owner, state FROM upload_file WHERE ends > 0 AND ends <= $1 ORDER BY ends LIMIT $2`
	sqlUnused   = `SELECT id, object FROM upload_blob WHERE refs = 0 ORDER BY id LIMIT $1`
	sqlDiscard  = `DELETE FROM upload_blob WHERE id = $1 AND refs = 0`
	sqlContents = `SELECT id, object, missing FROM upload_blob WHERE object > $1 ORDER BY object LIMIT $2`
	sqlKnown    = `SELECT COUNT(*) FROM upload_blob WHERE object = $1`
	sqlMark     = `UPDATE upload_blob SET missing = $1 WHERE id = $2 AND object = $3`
	sqlOwned    = `SELECT id FROM upload_file WHERE owner = $1 ORDER BY id LIMIT $2`
)

// over are files and slots whose time has come.
func (s *store) over(ctx context.Context, now time.Time, limit int) ([]*File, error) {
	return storage.All(ctx, s.env.DB, func(r storage.Row) (*File, error) {
		f := &File{}
		return f, r.Scan(&f.ID, &f.Owner, &f.state)
	}, sqlOver, micros(now), limit)
}

func (s *store) unused(ctx context.Context, limit int) ([]*content, error) {
	return storage.All(ctx, s.env.DB, func(r storage.Row) (*content, error) {
		c, object := &content{}, ""
		err := r.Scan(&c.id, &object)
		c.object, _ = blob.ParseKey(object)
		return c, err
	}, sqlUnused, limit)
}

func (s *store) contents(ctx context.Context, after string, limit int) ([]*content, error) {
	return storage.All(ctx, s.env.DB, func(r storage.Row) (*content, error) {
		c, object, missing := &content{}, "", int64(0)
		err := r.Scan(&c.id, &object, &missing)
		c.object, _ = blob.ParseKey(object)
		c.missing = missing != 0
		return c, err
	}, sqlContents, after, limit)
}

// discard removes the row of content that nobody has; false: somebody has it.
func (s *store) discard(ctx context.Context, id int64) (bool, error) {
	n, err := s.env.DB.Exec(ctx, sqlDiscard, id)
	return n == 1, err
}

func (s *store) known(ctx context.Context, object blob.Key) (bool, error) {
	var n int64
	err := s.env.DB.QueryRow(ctx, sqlKnown, object.String()).Scan(&n)
	return n > 0, err
}

func (s *store) mark(ctx context.Context, c *content, missing bool, now time.Time) (bool, error) {
	at := int64(0)
	if missing {
		at = micros(now)
	}
	n, err := s.env.DB.Exec(ctx, sqlMark, at, c.id, c.object.String())
	return n == 1, err
}

// forget removes everything that an account has uploaded.
func (s *store) forget(ctx context.Context, owner string) error {
	for {
		some, err := storage.All(ctx, s.env.DB, func(r storage.Row) (id int64, err error) { return id, r.Scan(&id) }, sqlOwned, owner, atOnce)
		if err != nil || len(some) == 0 {
			return err
		}
		for _, id := range some {
			if _, err := s.remove(ctx, owner, id); err != nil {
				return fmt.Errorf("files of %s: %w", owner, err)
			}
		}
	}
}
