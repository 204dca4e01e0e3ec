package archive

import (
	"context"
	"fmt"
	"math"
	"slices"

	"parley/parser/stanza"
	"parley/plugins/message/kinds"
	"parley/storage"
)

// Namespaces of what is taken back, and of who did it.
const (
	nsRetract    = "urn:xmpp:message-retract:1"
	nsOccupantID = "urn:xmpp:occupant-id:0"
)

// retractFeatures are announced (XEP-0424 §3, §5).
func retractFeatures() []string { return []string{nsRetract, nsRetract + "#tombstone"} }

// A retraction is applied to its own archive alone, behind the commit that has
// stored it: the sender's has one, the recipient's has another. What a crash keeps
// from being applied at once is applied when the index comes to the retraction.
//
// The statements: the first one lets a transaction that is indexing the message at
// that moment begin anew (index.go).
var (
	retractTouch = storage.Stmt{Name: "archive.retract.touch", SQL: `UPDATE archive_owner SET indexed = indexed WHERE id = $1`, Idempotent: true}
	retractRow   = storage.Stmt{Name: "archive.retract", SQL: `UPDATE archive SET stanza = $4, key_id = $5 WHERE owner = $1 AND id = $2 AND peer = $3`, Idempotent: true}
	deleteWord   = storage.Stmt{Name: "archive.word.forget", SQL: `DELETE FROM archive_word WHERE owner = $1 AND word = $2 AND id = $3`, Idempotent: true}
)

// retracts is what a message takes back: the id that its sender gave that (XEP-0424
// §4); "": nothing. One without an id of its own cannot be named by a tombstone.
func retracts(st *stanza.Stanza) string {
	el := st.Child(nsRetract, "retract")
	if el == nil || st.ID == "" {
		return ""
	}
	return el.Get("id")
}

// stored is a row with what finds it.
type stored struct {
	row
	peer int64
	st   *stanza.Stanza
}

// retract adds what replaces the message that a stored one takes back by a
// tombstone, if its author is the same; false: there is none.
func (a *Archive) retract(ctx context.Context, q storage.Querier, owner int64, by *stored, store func(*storage.Stmt, ...any)) (bool, error) {
	target, err := a.sent(ctx, q, owner, by, retracts(by.st))
	if err != nil || target == nil {
		return false, err
	}
	a.bury(owner, target, a.tombstone(by.st.ID), store)
	return true, nil
}

// tombstone is <retracted/> (XEP-0424 §5).
func (a *Archive) tombstone(by string) *stanza.Element {
	return stanza.El(nsRetract, "retracted").With("id", by).With("stamp", a.env.Clock.Now().UTC().Format(stampLayout))
}

// bury adds what leaves of a message who sent it to whom under which id, with a
// tombstone or without, and lets the index forget the rest.
func (a *Archive) bury(owner int64, m *stored, tomb *stanza.Element, store func(*storage.Stmt, ...any)) {
	e := m.st.StampForwarded()
	e.Inner, e.Cut = stanza.Span{}, nil
	if who, ok := m.st.Find(nsOccupantID, "occupant-id"); ok { // XEP-0425 §5
		e.Append = append(e.Append, m.st.ChildBytes(who)...)
	}
	if tomb != nil {
		e.Append = tomb.Append(e.Append, stanza.NSClient)
	}
	raw := e.Render(nil, m.raw)
	body, key := a.env.AtRest.Seal(&sealedRows, raw, owner, m.id, m.peer)
	store(&retractTouch, owner)
	store(&retractRow, owner, m.id, m.peer, body, key)
	left := a.termsOf(raw, m.peer)
	for _, t := range terms(m.st, m.peer, true) {
		if !slices.Contains(left, t) {
			store(&deleteWord, owner, t, m.id)
		}
	}
}

// buried reports whether a message is one no more, or takes another one back: the
// archive keeps that (XEP-0424 §6).
func buried(st *stanza.Stanza) bool {
	return st.Has(nsRetract, "retracted") || st.Has(nsRetract, "retract")
}

// author reports whether two messages are from the same person: from the same
// account, or the same occupant of a room, which private messages show (XEP-0424 §6).
func author(x, y *stanza.Stanza) bool {
	if kinds.Of(x).Has(kinds.Room) || kinds.Of(y).Has(kinds.Room) {
		return x.From == y.From
	}
	return x.From.Bare() == y.From.Bare()
}

// sent is the last message before another one that its author has sent in the same
// conversation under an id; nil: there is none.
func (a *Archive) sent(ctx context.Context, q storage.Querier, owner int64, by *stored, id string) (*stored, error) {
	var to int64
	if err := q.QueryRow(ctx, `SELECT indexed FROM archive_owner WHERE id = $1`, owner).Scan(&to); err != nil {
		return nil, fmt.Errorf("archive index: %w", err)
	}
	is := func(m stored) bool {
		return m.st != nil && slices.Contains(idsOf(m.st), id) && author(m.st, by.st) && !buried(m.st)
	}
	tail, err := a.storedWith(ctx, q, owner, by.peer, span{to, by.id}, tailMost)
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(tail, is); i >= 0 {
		return &tail[i], nil
	}
	l := a.lists(q, owner, []int64{term(termID, id), contactTerm(by.peer)}, span{0, min(to+1, by.id)}, true)
	for range tailMost {
		at, ok, err := l.next(ctx)
		if err != nil || !ok {
			return nil, err
		}
		some, err := a.storedWith(ctx, q, owner, by.peer, span{at - 1, at + 1}, 1)
		if err != nil {
			return nil, err
		}
		if i := slices.IndexFunc(some, is); i >= 0 {
			return &some[i], nil
		}
	}
	return nil, nil
}

// storedWith are the last rows of a span with somebody, the newest first; st is nil
// for damaged ones.
func (a *Archive) storedWith(ctx context.Context, q storage.Querier, owner, peer int64, s span, limit int) ([]stored, error) {
	if s.before == 0 {
		s.before = math.MaxInt64
	}
	return a.storedAll(ctx, q, owner, `SELECT id, peer, key_id, stanza FROM archive WHERE owner = $1 AND peer = $2 AND id > $3 AND id < $4 ORDER BY id DESC LIMIT $5`,
		owner, peer, s.after, s.before, limit)
}

// storedAll reads "id, peer, key_id, stanza".
func (a *Archive) storedAll(ctx context.Context, q storage.Querier, owner int64, sql string, args ...any) ([]stored, error) {
	return storage.All(ctx, q, func(s storage.Row) (m stored, err error) {
		var key int64
		if err := s.Scan(&m.id, &m.peer, &key, &m.raw); err != nil {
			return m, err
		}
		if m.raw, err = a.opened(&sealedRows, key, m.raw, owner, m.id, m.peer); err != nil || m.raw == nil {
			return m, err
		}
		if st, err := stanza.Parse(m.raw, stanza.NSClient, a.jids); err == nil {
			m.st = st
		}
		return m, nil
	}, sql, args...)
}

// retracted applies a retraction that was stored a moment ago. It runs where the
// message is on its way, behind its commit and before anybody gets it.
func (p *part) retracted(o *owner, id, peer int64, st *stanza.Stanza) {
	ctx, cancel := context.WithTimeout(context.Background(), p.cfg.Timeout)
	defer cancel()
	var w storage.WriteSet
	found, err := p.retract(ctx, p.env.DB, o.id, &stored{row{id: id}, peer, st}, w.Add)
	if err == nil && found {
		err = p.env.DB.Commit(ctx, &w)
	}
	if err != nil {
		p.env.Log.Warn("retracted message stays in an archive until it is indexed", "owner", o.jid.String(), "err", err)
		return
	}
	if found {
		p.metrics.retracted.Inc()
	}
}

// Retraction is how a message of a room is taken back.
type Retraction struct {
	ID        int64           // which one
	By        string          // the id of the message that says so, which the room keeps, too
	Moderated *stanza.Element // <moderated xmlns='urn:xmpp:message-moderate:1'/> (XEP-0425 §5); nil: its author does it
	Reason    string
}

// Retract adds to a caller's write set what replaces one of the room's messages by
// a tombstone (XEP-0424 §5, XEP-0425 §5), once may has agreed to it as it was kept:
// that its author is the one who asks, or a moderator asks. Errors are may's, and
// *stanza.Error item-not-found: there is none, or it was taken back before.
func (r *Room) Retract(ctx context.Context, how Retraction, may func(*stanza.Stanza) error, store func(*storage.Stmt, ...any)) error {
	found, err := r.a.storedAll(ctx, r.a.env.DB, r.owner.id, `SELECT id, peer, key_id, stanza FROM archive WHERE owner = $1 AND id = $2`, r.owner.id, how.ID)
	switch {
	case err != nil:
		return fmt.Errorf("archive of %s: %w", r.owner.jid, err)
	case len(found) == 0 || found[0].st == nil || buried(found[0].st):
		return errNotFound()
	}
	if err := may(found[0].st); err != nil {
		return err
	}
	tomb := r.a.tombstone(how.By).Add(how.Moderated)
	if how.Reason != "" {
		tomb.Add(stanza.El(nsRetract, "reason").AddText(how.Reason))
	}
	r.a.bury(r.owner.id, &found[0], tomb, store)
	return nil
}
