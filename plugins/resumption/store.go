package resumption

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"parley/parser/jid"
	"parley/router/channel"
	"parley/router/sessions"
	"parley/storage"
	"parley/stream"
)

// The writes. Each may run twice, and none undoes a later one.
var (
	writeRow = storage.Stmt{
		Name: "resumption.write",
		SQL: `INSERT INTO resumption (id, key, account, epoch, h, span, away, state, alone, acked, queue, node, given, life) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
ON CONFLICT (id) DO UPDATE SET h = excluded.h, away = excluded.away, state = excluded.state, alone = excluded.alone, acked = excluded.acked, queue = excluded.queue, given = excluded.given
WHERE resumption.epoch = excluded.epoch AND resumption.h <= excluded.h`,
		Idempotent: true,
	}
	writeCount = storage.Stmt{
		Name:       "resumption.count",
		SQL:        `UPDATE resumption SET h = $3 WHERE id = $1 AND epoch = $2 AND h < $3`,
		Idempotent: true,
	}
	// In a cluster the rows of a batch go with these: a node that has lost a
	// session, and does not know it yet, stores nothing for it any more. They hold
	// whatever has been written since.
	guardRow = storage.Stmt{
		Name: "resumption.guarded",
		SQL: `INSERT INTO resumption (id, key, account, epoch, h, span, away, state, alone, acked, queue, node, given, life) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
ON CONFLICT (id) DO UPDATE SET h = CASE WHEN resumption.h < excluded.h THEN excluded.h ELSE resumption.h END,
	away = CASE WHEN resumption.h <= excluded.h THEN excluded.away ELSE resumption.away END,
	state = CASE WHEN resumption.h <= excluded.h THEN excluded.state ELSE resumption.state END,
	alone = CASE WHEN resumption.h <= excluded.h THEN excluded.alone ELSE resumption.alone END,
	acked = CASE WHEN resumption.h <= excluded.h THEN excluded.acked ELSE resumption.acked END,
	queue = CASE WHEN resumption.h <= excluded.h THEN excluded.queue ELSE resumption.queue END,
	given = CASE WHEN resumption.h <= excluded.h THEN excluded.given ELSE resumption.given END
WHERE resumption.epoch = excluded.epoch`,
		Idempotent: true, Must: true,
	}
	guardCount = storage.Stmt{
		Name:       "resumption.guarded-count",
		SQL:        `UPDATE resumption SET h = CASE WHEN h < $3 THEN $3 ELSE h END WHERE id = $1 AND epoch = $2`,
		Idempotent: true, Must: true,
	}
	// In a cluster the end of a session is kept for a while: another node may be
	// asked for it.
	endRow = storage.Stmt{
		Name:       "resumption.over",
		SQL:        `UPDATE resumption SET span = 0, h = $3, away = $4, alone = 0, acked = NULL, queue = NULL WHERE id = $1 AND epoch = $2`,
		Idempotent: true,
	}
	// The end of one that waits here: unless somebody has taken it meanwhile.
	lapseRow = storage.Stmt{
		Name:       "resumption.lapsed",
		SQL:        `UPDATE resumption SET span = 0, away = $3, alone = 0, acked = NULL, queue = NULL WHERE id = $1 AND epoch = $2 AND (died > 0 OR given = 1)`,
		Idempotent: true,
	}
	deleteRow = storage.Stmt{
		Name:       "resumption.end",
		SQL:        `DELETE FROM resumption WHERE id = $1 AND epoch = $2`,
		Idempotent: true,
	}
)

// idOf is the part of a key that a row is found by.
func idOf(k stream.Key) int64 { return int64(binary.BigEndian.Uint64(k[:8]) >> 1) }

// encodeState is the entry as it goes into the row. The form is the wire's,
// which carries its version: what a later release cannot read, ends.
func encodeState(e *sessions.Entry) []byte {
	st := e.State
	st.Hibernated, st.Replaying, st.Paused, st.Remote = false, false, false, ""
	return channel.Encode(nil, &channel.Envelope{Kind: channel.Bind, Session: sessions.Ref{JID: e.JID}, State: &st})
}

// what separates rows, which are never negative, from how far the client has come.
const heardFollows = -1

func encodeQueue(out *stream.Outbound) []byte {
	b := make([]byte, 0, 8*len(out.Rows))
	for _, r := range out.Rows {
		b = binary.AppendVarint(b, r)
	}
	if len(out.Heard) == 0 {
		return b
	}
	b = binary.AppendVarint(b, heardFollows)
	for _, h := range out.Heard {
		b = binary.AppendVarint(b, int64(len(h.Chain)))
		b = append(b, h.Chain...)
		b = binary.AppendVarint(b, int64(h.Nth))
		b = binary.AppendVarint(b, h.At)
	}
	return b
}

var errDamaged = errors.New("damaged row")

func decodeQueue(b []byte, out *stream.Outbound) error {
	number := func() (v int64, err error) {
		v, n := binary.Varint(b)
		if n <= 0 {
			return 0, errDamaged
		}
		b = b[n:]
		return v, nil
	}
	heard := false
	for len(b) > 0 {
		v, err := number()
		switch {
		case err != nil:
			return err
		case !heard && v == heardFollows:
			heard = true
			continue
		case !heard:
			out.Rows = append(out.Rows, v)
			continue
		case v < 0 || v > int64(len(b)):
			return errDamaged
		}
		h := stream.Heard{Chain: string(b[:v])}
		b = b[v:]
		nth, err := number()
		if err != nil {
			return err
		}
		h.Nth = int(nth)
		if h.At, err = number(); err != nil {
			return err
		}
		out.Heard = append(out.Heard, h)
	}
	return nil
}

// selectLeft selects what scanLeft reads.
const selectLeft = `SELECT id, key, epoch, h, span, away, state, alone, acked, queue, buried, given, died, node, life FROM resumption`

// takeRow makes a row another process's.
const takeRow = `UPDATE resumption SET epoch = epoch + 1, acked = NULL, queue = NULL, buried = 0, given = 0, died = 0, node = $2, life = $3 WHERE id = $1`

// left is a row of an earlier process.
type left struct {
	stream.Lasting
	id    int64
	epoch int64
	at    owner // who has, or had it
	given bool  // its node lets another one have it
	err   error // why it cannot go on
}

// takeAll reads the rows of earlier processes of the node, or if it is alone all
// there are, and makes them this process's: in one transaction, so that what
// another one still writes comes before or counts for nothing. What was noted at
// an orderly stop holds once. Sessions that are here already stay as they are.
func takeAll(ctx context.Context, db storage.DB, node string, life uint64, alone bool, here func(stream.Key) *record) (list []left, err error) {
	err = db.Tx(ctx, func(tx storage.Tx) error {
		list, err = storage.All(ctx, tx, scanLeft, selectLeft+` WHERE node = $1 OR $2 = 1`, node, toInt(alone))
		if err != nil {
			return err
		}
		all := len(list)
		list = slices.DeleteFunc(list, func(l left) bool { return here(l.Key) != nil })
		if len(list) == all {
			_, err = tx.Exec(ctx, `UPDATE resumption SET epoch = epoch + 1, acked = NULL, queue = NULL, buried = 0, given = 0, died = 0, node = $1, life = $3 WHERE node = $1 OR $2 = 1`, node, toInt(alone), int64(life))
			return err
		}
		for _, l := range list {
			if _, err := tx.Exec(ctx, takeRow, l.id, node, int64(life)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("sessions: %w", err)
	}
	ofAccount := map[jid.JID]int{} // a device that came right before the end may not be in the others' rows
	for _, l := range list {
		if l.Window > 0 {
			ofAccount[l.Ref.JID.Bare()]++
		}
	}
	for i := range list {
		list[i].Over = list[i].Over || ofAccount[list[i].Ref.JID.Bare()] > 1
	}
	return list, nil
}

// owner is a process that has a session; life 0: it is not known which one of the
// node's. The zero value is nobody.
type owner struct {
	node string
	life uint64
}

// whereIs returns who has the account's session of that key, and whether that one
// has let it go already.
func whereIs(ctx context.Context, db storage.DB, k stream.Key, account jid.JID) (at owner, given bool, err error) {
	var key []byte
	var life, let int64
	err = db.QueryRow(ctx, `SELECT node, life, key, given FROM resumption WHERE id = $1 AND account = $2`, idOf(k), account.String()).Scan(&at.node, &life, &key, &let)
	switch {
	case errors.Is(err, storage.ErrNoRows) || err == nil && !bytes.Equal(key, k[:]):
		return owner{}, false, nil
	case err != nil:
		return owner{}, false, fmt.Errorf("session: %w", err)
	}
	at.life = uint64(life)
	return at, let == 1, nil
}

// takeOne makes one row this node's, as takeAll does; of a node that is there
// (asked) only what that one has let go. nil: there is none, or none to be had.
func takeOne(ctx context.Context, db storage.DB, k stream.Key, account jid.JID, node string, life uint64, asked bool) (*left, error) {
	return takeOneIf(ctx, db, k, account, owner{node, life}, func(l *left) bool { return l.given || !asked })
}

// takeOneIf is takeOne for a row that may be taken.
func takeOneIf(ctx context.Context, db storage.DB, k stream.Key, account jid.JID, to owner, may func(*left) bool) (l *left, err error) {
	err = db.Tx(ctx, func(tx storage.Tx) error {
		l = nil
		list, err := storage.All(ctx, tx, scanLeft, selectLeft+` WHERE id = $1 AND account = $2`, idOf(k), account.String())
		if err != nil || len(list) == 0 || list[0].Key != k || !may(&list[0]) {
			return err
		}
		l = &list[0]
		// Somebody may be burying it at this moment, and telling its contacts: they
		// are told once more that it is there.
		l.State.Buried = l.State.Buried || !l.given
		var rows int
		if err := tx.QueryRow(ctx, `SELECT COUNT(*) FROM resumption WHERE span > 0 AND account = $1`, account.String()).Scan(&rows); err != nil {
			return err
		}
		l.Over = l.Over || rows > 1
		_, err = tx.Exec(ctx, takeRow, l.id, to.node, int64(to.life))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("session: %w", err)
	}
	return l, nil
}

func toInt(yes bool) int64 {
	if yes {
		return 1
	}
	return 0
}

func scanLeft(row storage.Row) (l left, err error) {
	var key, state, queue []byte
	var h, span, away, alone, buried, given, died, life int64
	var acked *int64
	if err := row.Scan(&l.id, &key, &l.epoch, &h, &span, &away, &state, &alone, &acked, &queue, &buried, &given, &died, &l.at.node, &life); err != nil {
		return l, err
	}
	l.epoch++
	l.at.life = uint64(life)
	l.given = given == 1 || span == 0
	if len(key) != len(l.Key) {
		l.err = errDamaged
		return l, nil
	}
	copy(l.Key[:], key)
	l.H, l.Window = uint64(h), time.Duration(span)*time.Microsecond
	if away == 0 { // it had a connection to the end
		away = died
	}
	if away != 0 {
		l.Away = time.UnixMicro(away)
	}
	e, err := channel.Decode(state, nil)
	if err != nil || e.State == nil {
		l.err = fmt.Errorf("state: %w", errors.Join(errDamaged, err))
		return l, nil
	}
	l.Ref, l.State, l.Over = e.Session, *e.State, alone == 0 || span == 0
	l.State.Buried = l.State.Buried || buried == 1
	if acked != nil {
		l.Sent = &stream.Outbound{Acked: uint64(*acked)}
		l.err = decodeQueue(queue, l.Sent)
	}
	return l, nil
}

// replace notes of a session of another node that one of this node has its
// address: it is over. What that node still wants to store for it counts for
// nothing.
func replace(ctx context.Context, db storage.DB, at sessions.Ref) error {
	type found struct {
		id int64
		at jid.JID
	}
	rows, err := storage.All(ctx, db, func(row storage.Row) (f found, err error) {
		var state []byte
		if err := row.Scan(&f.id, &state); err != nil {
			return f, err
		}
		if e, err := channel.Decode(state, nil); err == nil {
			f.at = e.Session.JID
		}
		return f, nil
	}, `SELECT id, state FROM resumption WHERE account = $1 AND node = $2`, at.JID.Bare().String(), at.Node)
	if err != nil {
		return fmt.Errorf("session of %s: %w", at.Node, err)
	}
	for _, f := range rows {
		if f.at != at.JID {
			continue
		}
		if _, err := db.Exec(ctx, `UPDATE resumption SET buried = 1, epoch = epoch + 1, span = 0 WHERE id = $1 AND node = $2`, f.id, at.Node); err != nil {
			return fmt.Errorf("session of %s: %w", at.Node, err)
		}
	}
	return nil
}

// buryAll notes that a life of a node is over: contacts of the sessions that it
// has not given away are told that they have gone, and what it still wants to
// store for them counts for nothing. A second time it does nothing.
func buryAll(ctx context.Context, db storage.DB, node string, life uint64, now time.Time) error {
	_, err := db.Exec(ctx, `UPDATE resumption SET died = CASE WHEN died = 0 THEN $3 ELSE died END,
	buried = CASE WHEN given = 1 THEN buried ELSE 1 END, epoch = CASE WHEN given = 1 THEN epoch ELSE epoch + 1 END
WHERE node = $1 AND life <= $2 AND span > 0 AND (died = 0 OR given = 0 AND buried = 0)`, node, int64(life), now.UnixMicro())
	if err != nil {
		return fmt.Errorf("sessions of %s: %w", node, err)
	}
	return nil
}

// nodesOf returns the nodes that have sessions.
func nodesOf(ctx context.Context, db storage.DB) ([]string, error) {
	all, err := storage.All(ctx, db, func(row storage.Row) (node string, err error) {
		return node, row.Scan(&node)
	}, `SELECT DISTINCT node FROM resumption WHERE span > 0`)
	if err != nil {
		return nil, fmt.Errorf("nodes of sessions: %w", err)
	}
	return all, nil
}

// seenDead notes since when a node is known to be gone, where nobody has.
func seenDead(ctx context.Context, db storage.DB, node string, now time.Time) error {
	if _, err := db.Exec(ctx, `UPDATE resumption SET died = $2 WHERE node = $1 AND died = 0 AND span > 0`, node, now.UnixMicro()); err != nil {
		return fmt.Errorf("sessions of %s: %w", node, err)
	}
	return nil
}

// lapsed is a session that nobody has come for in time.
type lapsed struct {
	id, epoch int64
	buried    bool
	last      *sessions.Entry // as it was; nil: the row is damaged
}

// lapsedOf returns sessions of a node that is gone, or that it has paused, which
// nobody has come for within their window, at most that many.
func lapsedOf(ctx context.Context, db storage.DB, node string, now time.Time, most int) ([]lapsed, error) {
	all, err := storage.All(ctx, db, func(row storage.Row) (l lapsed, err error) {
		var buried int64
		var state []byte
		if err := row.Scan(&l.id, &l.epoch, &buried, &state); err != nil {
			return l, err
		}
		l.buried = buried == 1
		if e, err := channel.Decode(state, nil); err == nil && e.State != nil {
			l.last = &sessions.Entry{Ref: sessions.Ref{Node: node, JID: e.Session.JID}, State: *e.State}
		}
		return l, nil
	}, `SELECT id, epoch, buried, state FROM resumption
WHERE node = $1 AND span > 0 AND (died > 0 OR given = 1 AND away > 0) AND span + CASE WHEN away > 0 THEN away ELSE died END < $2 LIMIT $3`, node, now.UnixMicro(), most)
	if err != nil {
		return nil, fmt.Errorf("sessions of %s: %w", node, err)
	}
	return all, nil
}

// deleteEnded removes what is kept of sessions that ended before then.
func deleteEnded(ctx context.Context, db storage.DB, before time.Time) error {
	if _, err := db.Exec(ctx, `DELETE FROM resumption WHERE span = 0 AND away < $1`, before.UnixMicro()); err != nil {
		return fmt.Errorf("ended sessions: %w", err)
	}
	return nil
}

func deleteAccount(ctx context.Context, db storage.DB, account jid.JID) error {
	if _, err := db.Exec(ctx, `DELETE FROM resumption WHERE account = $1`, account.String()); err != nil {
		return fmt.Errorf("sessions of %s: %w", account, err)
	}
	return nil
}
