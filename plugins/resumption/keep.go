package resumption

import (
	"parley/router/sessions"
	"parley/storage"
)

// What the house says of a session's stanzas, and the streamer of its client.

// Keep implements processor.Keeper.
func (b *book) Keep(ref sessions.Ref, seq uint64, rows bool, w *storage.WriteSet) bool {
	r := b.find(ref)
	if r == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if !rows { // an IQ or presence, what may have changed the state; or messages that were refused
		r.seq = max(r.seq, seq)
	}
	if r.gone {
		return false
	}
	if !rows {
		r.stale = true
		b.mark(r)
		return false
	}
	row, says, added := b.write(r, w, seq, b.guards())
	if added {
		r.trying, r.says = row, says
		r.busy++
	}
	return added
}

// Kept implements processor.Keeper.
func (b *book) Kept(ref sessions.Ref, seq uint64, stored bool) (lasts bool) {
	r := b.find(ref)
	if r == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.busy--
	if !stored {
		r.stale = true
		b.mark(r)
		return false
	}
	r.seq = max(r.seq, seq)
	b.written(r, r.says, r.trying)
	return r.says >= seq
}

// Refused implements processor.Keeper.
func (b *book) Refused(ref sessions.Ref, seq uint64) {
	r := b.find(ref)
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if seq > r.base {
		r.refused.Add(seq)
	}
}

// Heard implements stream.Resumptions.
func (b *book) Heard(ref sessions.Ref, seq uint64) {
	b.with(ref, func(r *record) { r.refused.Heard(seq) })
}
