package archive

import (
	"context"
	"fmt"
	"hash/maphash"
	"sync"
	"time"

	"github.com/maypok86/otter/v2"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins/message/kinds"
	"parley/processor"
	"parley/storage"
)

// standing is what the archive knows of a message.
type standing uint8

const (
	fresh     standing = iota // nothing: its rows have to be stored
	there                     // it is stored, though its sender was told that it is not: the database could not say
	sent                      // it is stored and has been on its way
	elsewhere                 // it is stored by another node, which may have died before it was on its way
)

// entry is a message's place in an archive.
type entry struct {
	id       int64
	standing standing
	fate     *fate // nil: nothing waits for it
}

// fate is what waits until it is known whether a message was stored.
type fate struct {
	part   *part
	owner  *owner
	key    resentKey
	shared bool // resent knows it as being stored
	row    bool // it counts in the archive then
	waits  bool // it is counted among what waits already
}

// settled is what processor.Flow.Settled calls. Of several that share their rows
// one counts.
func (x *fate) settled(stored bool) {
	if x.shared {
		stored = x.part.resent.landed(x.key, stored)
	}
	if x.waits {
		x.part.quiet.settled(x.owner.id)
		if !stored {
			x.owner.pending.Add(-1)
		}
	}
	if x.row && stored {
		x.part.counts(x.owner)
	}
}

// fate is what becomes of the message.
func (p *part) fate(o *owner, e *entry, f *processor.Flow) *fate {
	if e.fate == nil {
		e.fate = &fate{part: p, owner: o}
		f.Settled(e.fate.settled)
	}
	return e.fate
}

// identify gives the message its place in the owner's archive, the one it has if
// the client sends it a second time: after a failed resumption it cannot know
// what arrived (rule: duplicate detection).
//
// One whose first commit is still under way gets the same id, and the same rows
// once more: whichever commit comes through, it is stored once, and when one
// fails its sender's error is true of that one alone.
func (p *part) identify(ctx context.Context, o *owner, contact jid.JID, f *processor.Flow) (e entry, err error) {
	key, ok := p.resent.key(o, f.Stanza)
	if !ok {
		return entry{id: p.ids.take(f)}, nil
	}
	if err := p.recall(ctx, o, peerKey(contact.Bare()), p.othersUntil(f)); err != nil {
		return e, err
	}
	if id, ok := p.resent.underWay(key); ok {
		p.metrics.resent.Inc()
		e.id = id
		p.shares(o, &e, key, f)
		p.ids.cover(f, id)
		return e, nil
	}
	if id, ok := p.resent.seen.GetIfPresent(key); ok {
		// What was noted may not have been committed, or be delivered and gone.
		s := sent
		switch {
		case id < 0:
			id, s = -id, there
		case p.env.Notices != nil && id >= p.began && !p.gave(id):
			s = elsewhere
		}
		stored, waits, err := p.stored(ctx, o, id)
		if s == elsewhere && !waits {
			s = sent // somebody has it
		}
		if err != nil || stored {
			p.metrics.resent.Inc()
			return entry{id: id, standing: s}, err
		}
	}
	e.id = p.resent.begin(key, p.ids.Next())
	p.shares(o, &e, key, f)
	p.ids.cover(f, e.id)
	return e, nil
}

// shares lets resent know what becomes of a message that it has as being stored.
func (p *part) shares(o *owner, e *entry, key resentKey, f *processor.Flow) {
	x := p.fate(o, e, f)
	x.key, x.shared = key, true
}

// stored reports whether the message is in the database, and whether it waits
// for its recipient.
func (p *part) stored(ctx context.Context, o *owner, id int64) (stored, waits bool, err error) {
	var kept, pending int
	err = p.env.DB.QueryRow(ctx, `SELECT (SELECT COUNT(*) FROM archive WHERE owner = $1 AND id = $2), (SELECT COUNT(*) FROM archive_pending WHERE owner = $1 AND id = $2)`, o.id, id).Scan(&kept, &pending)
	return kept+pending > 0, pending > 0, err
}

// How much of an archive is looked at for messages that are sent again after
// the server, or a node, has died or does not answer: what a client had not seen
// acknowledged is the last that it was stored to have sent to that contact. Others
// may have said much more meanwhile.
const (
	recallRows  = 500
	recallSpan  = 5 * time.Minute // longer than any acknowledgement is late
	recallPairs = 256             // contacts of an archive for which is remembered that it was looked at
)

// recalled is a table that recall looks into.
type recalled struct {
	sql  string
	args []any // further ones
	scan func(storage.Row) (row, error)
}

// recallFrom is what the archive holds of the contact, and what it must not hold
// and only waits: of that there is little.
func (p *part) recallFrom(o *owner, peer int64) [2]recalled {
	return [...]recalled{{
		`SELECT id, peer, key_id, stanza FROM archive WHERE owner = $1 AND peer = $5 AND id < $2 AND id > (SELECT MAX(id) FROM archive WHERE owner = $1 AND id < $2) - $3 ORDER BY id DESC LIMIT $4`,
		[]any{peer},
		func(s storage.Row) (row, error) { return p.message(o, s) },
	}, {
		`SELECT id, key_id, stanza FROM archive_pending WHERE owner = $1 AND id < $2 AND id > (SELECT MAX(id) FROM archive_pending WHERE owner = $1 AND id < $2) - $3 AND stanza IS NOT NULL ORDER BY id DESC LIMIT $4`,
		nil,
		func(s storage.Row) (row, error) {
			m, err := p.waiting(o.id, s)
			return m.row, err
		},
	}}
}

// gave reports whether an id is one of this node's.
func (p *part) gave(id int64) bool { return id%storage.NodeSlots == int64(p.env.Slot) }

// othersUntil is up to where another process may have stored what the sender's
// client sends again here (an id): until this process began, or with several
// nodes, until its session did.
func (p *part) othersUntil(f *processor.Flow) int64 {
	if p.env.Notices == nil || f.Session == nil {
		return p.began
	}
	return max(p.began, idAt(f.Session.BoundAt.Add(givenWithin+clockSkew)))
}

const (
	// clockSkew is how far the clocks of two nodes may differ.
	clockSkew = 2 * time.Second
	// givenWithin is how long the other node may take to store what the session has
	// said there: it counts as bound here since it was asked for.
	givenWithin = 15 * time.Second
)

// recall fills the memory of what was stored of the contact by other processes
// until then, once for each session that writes: clients cannot know what of that
// arrived, and send it again (D2: what comes twice has the same stanza-id).
func (p *part) recall(ctx context.Context, o *owner, peer, until int64) error {
	if p.env.Clock.Now().Sub(timeOf(until)) > resentWindow {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.recalled[peer] >= until {
		return nil
	}
	var rows []row
	for _, from := range p.recallFrom(o, peer) {
		args := append([]any{o.id, until, recallSpan.Microseconds(), recallRows}, from.args...)
		some, err := storage.All(ctx, p.env.DB, from.scan, from.sql, args...)
		if err != nil {
			return fmt.Errorf("archive of %s: %w", o.jid, err)
		}
		rows = append(rows, some...)
	}
	for _, r := range rows {
		st, err := stanza.Parse(r.raw, stanza.NSClient, p.jids)
		if err != nil {
			continue // nobody can send that again
		}
		if key, ok := p.resent.key(o, st); ok {
			p.resent.found(key, r.id) // the newest first: it is the one that counts
		}
	}
	if o.recalled == nil || len(o.recalled) >= recallPairs {
		o.recalled = map[int64]int64{} // who is forgotten is looked at once more
	}
	o.recalled[peer] = until
	return nil
}

// resent remembers, for a day, under which id a message with an origin-id was
// stored; negative: its sender was told that it was not. An origin-id counts for
// its sender only (XEP-0359 §6), and for what it was given to. It is bounded; what this process did not store itself it finds by recall.
type resent struct {
	seen *otter.Cache[resentKey, int64]
	seed [2]maphash.Seed

	mu     sync.Mutex
	flying map[resentKey]flight // bounded by the commits under way
}

// flight is a message that is being stored.
type flight struct {
	id     int64
	n      int  // by so many
	stored bool // by one of them
}

// found notes what another process has stored, unless more is known. That this one
// was not able to store it under another id says nothing.
func (r *resent) found(k resentKey, id int64) {
	if known, ok := r.seen.GetIfPresent(k); !ok || known < 0 && known != -id {
		r.seen.Set(k, id)
	}
}

// underWay returns the id of a message that is being stored, and joins in.
func (r *resent) underWay(k resentKey) (id int64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f, ok := r.flying[k]
	if ok {
		f.n++
		r.flying[k] = f
	}
	return f.id, ok
}

// begin notes a message that will be stored. Of two that begin at once the
// first one's id counts.
func (r *resent) begin(k resentKey, id int64) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	f, ok := r.flying[k]
	if !ok {
		f.id = id
	}
	f.n++
	r.flying[k] = f
	return f.id
}

// landed is the end of what underWay or begin has begun. first: this one has
// stored it, and none before.
func (r *resent) landed(k resentKey, stored bool) (first bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.flying[k]
	first = stored && !f.stored
	f.stored = f.stored || stored
	if f.n--; f.n > 0 {
		r.flying[k] = f
		return first
	}
	delete(r.flying, k)
	if f.stored {
		r.seen.Set(k, f.id)
	} else {
		r.seen.Set(k, -f.id)
	}
	return first
}

type resentKey [2]uint64

const (
	resentEntries = 200_000
	resentWindow  = 24 * time.Hour
)

func newResent() (*resent, error) {
	c, err := otter.New(&otter.Options[resentKey, int64]{
		MaximumSize:      resentEntries,
		ExpiryCalculator: otter.ExpiryWriting[resentKey, int64](resentWindow),
	})
	if err != nil {
		return nil, err
	}
	return &resent{seen: c, flying: map[resentKey]flight{}, seed: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}}, nil
}

// key is of who says what to whom, under which ids: a client that uses its ids
// again has something else to say, and that is another message.
func (r *resent) key(o *owner, st *stanza.Stanza) (k resentKey, ok bool) {
	el := st.Child(stanza.NSStanzaID, "origin-id")
	if el == nil || el.Get("id") == "" {
		return k, false
	}
	for i := range k {
		var h maphash.Hash
		h.SetSeed(r.seed[i])
		for _, s := range [...]string{o.jid.String(), st.From.Bare().String(), st.To.Bare().String(), st.ID, el.Get("id")} {
			_, _ = h.WriteString(s)
			_ = h.WriteByte(0)
		}
		for _, c := range st.Children {
			if said(c.Name) {
				_, _ = h.WriteString(c.Name.Space)
				_ = h.WriteByte(0)
				_, _ = h.Write(st.ChildBytes(c))
			}
		}
		k[i] = h.Sum64()
	}
	return k, true
}

// said reports whether a child belongs to what a message says, and not to how, when
// and by which way: that may be another one when a client says the same again, and
// we take some of it out.
func said(n stanza.Name) bool {
	switch n.Space {
	case stanza.NSDelay, "jabber:x:delay", stanza.NSStanzaID, stanza.NSHints, stanza.NSChatStates, stanza.NSCarbons: // jabber:x:delay: XEP-0091
		return false
	}
	return !kinds.IsWrapper(n)
}
