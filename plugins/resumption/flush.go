package resumption

// When the rows are written that no batch of messages takes along.

import (
	"context"
	"errors"
	"fmt"
	"time"

	"parley/router/channel"
	"parley/router/sessions"
	"parley/storage"
)

func (b *book) kick() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// run writes until ctx is done.
func (b *book) run(ctx context.Context) {
	b.kick() // what nobody was there to write
	for {
		select {
		case <-b.wake:
		case <-ctx.Done():
			return
		}
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeLimit)
		if err := b.flush(limited); err != nil {
			b.env.Log.Warn("sessions not written down; nothing of what they did since is acknowledged", "err", err)
		}
		cancel()
	}
}

const (
	writeLimit = 30 * time.Second
	writeBatch = 500 // rows of one commit, so that messages do not wait for long
)

// flush writes every record that is on the list.
func (b *book) flush(ctx context.Context) error {
	b.flushing.Lock()
	defer b.flushing.Unlock()
	b.mu.Lock()
	list := b.dirty
	b.dirty, b.timer = nil, false
	b.mu.Unlock()
	for len(list) > 0 {
		n := min(len(list), writeBatch)
		if err := b.flushSome(ctx, list[:n]); err != nil {
			for _, r := range list {
				r.mu.Lock()
				r.queued, r.stale = false, true
				b.mark(r)
				r.mu.Unlock()
			}
			return err
		}
		list = list[n:]
	}
	return nil
}

// attempt is a record as a flush has found it.
type attempt struct {
	seq           uint64
	row           image
	written, gone bool
}

func (b *book) flushSome(ctx context.Context, list []*record) error {
	var w storage.WriteSet
	tries := make([]attempt, len(list))
	for i, r := range list {
		r.mu.Lock()
		r.queued = false
		tries[i] = attempt{gone: r.gone && r.busy == 0}
		switch {
		case tries[i].gone:
			b.over(r, &w)
		case r.gone: // a batch is still committing the row
			b.mark(r)
		default:
			tries[i].row, tries[i].seq, tries[i].written = b.write(r, &w, r.seq, lazily())
		}
		if !r.gone && r.busy > 0 { // what is committing may get there first, with a higher h: then this changes nothing
			tries[i].row, r.stale = image{}, true
			b.mark(r)
		}
		r.mu.Unlock()
	}
	if err := b.env.DB.Commit(ctx, &w); err != nil {
		return fmt.Errorf("%d sessions: %w", len(list), err)
	}
	var news []*channel.Envelope
	for i, r := range list {
		r.mu.Lock()
		t := tries[i]
		if t.written && !r.gone && t.seq > r.stored {
			news = append(news, &channel.Envelope{Kind: channel.Handled, Session: r.ref, Seq: t.seq, Stored: true})
		}
		if t.written {
			b.written(r, t.seq, t.row)
		}
		over := t.gone || r.last != nil && r.there && !r.queued
		r.mu.Unlock()
		if over {
			b.remove(r)
		}
	}
	if house := b.house.Load(); house != nil && len(news) > 0 {
		house.Route(ctx, news...)
	}
	return nil
}

var errEnding = errors.New("the session is ending")

// Sync implements stream.Resumptions.
func (b *book) Sync(ctx context.Context, ref sessions.Ref, seq uint64) error {
	r := b.find(ref)
	if r == nil {
		return nil
	}
	r.mu.Lock()
	r.refused.Heard(seq)
	seq = max(r.seq, seq)
	r.seq = seq
	if r.stored >= seq || r.gone {
		r.mu.Unlock()
		return nil
	}
	var w storage.WriteSet
	row, says, added := b.write(r, &w, seq, lazily())
	if !added {
		r.mu.Unlock()
		return errEnding
	}
	r.busy++
	r.mu.Unlock()
	err := b.env.DB.Commit(ctx, &w)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.busy--
	if err != nil {
		r.stale = true
		b.mark(r)
		return fmt.Errorf("session %s: %w", ref.JID, err)
	}
	b.written(r, says, row)
	return nil
}
