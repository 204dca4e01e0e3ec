package resumption

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
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
		SQL: `INSERT INTO resumption (id, key, account, epoch, h, span, away, state, alone, acked, queue, node, given) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
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
		SQL: `INSERT INTO resumption (id, key, account, epoch, h, span, away, state, alone, acked, queue, node, given) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
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

func encodeQueue(rows []int64) []byte {
	b := make([]byte, 0, 8*len(rows))
	for _, r := range rows {
		b = binary.AppendVarint(b, r)
	}
	return b
}

var errDamaged = errors.New("damaged row")

func decodeQueue(b []byte) (rows []int64, err error) {
	for len(b) > 0 {
		r, n := binary.Varint(b)
		if n <= 0 {
			return nil, errDamaged
		}
		rows, b = append(rows, r), b[n:]
	}
	return rows, nil
}

// selectLeft selects what scanLeft reads.
const selectLeft = `SELECT id, key, epoch, h, span, away, state, alone, acked, queue, buried, given FROM resumption`

// left is a row of an earlier process.
type left struct {
	stream.Lasting
	id    int64
	epoch int64
	given bool  // its node lets another one have it
	err   error // why it cannot go on
}

// takeAll reads the rows of earlier processes of the node, or if it is alone all
// there are, and makes them this process's: in one transaction, so that what
// another one still writes comes before or counts for nothing. What was noted at
// an orderly stop holds once.
func takeAll(ctx context.Context, db storage.DB, node string, alone bool) (list []left, err error) {
	err = db.Tx(ctx, func(tx storage.Tx) error {
		list, err = storage.All(ctx, tx, scanLeft, selectLeft+` WHERE node = $1 OR $2 = 1`, node, toInt(alone))
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE resumption SET epoch = epoch + 1, acked = NULL, queue = NULL, buried = 0, given = 0, node = $1 WHERE node = $1 OR $2 = 1`, node, toInt(alone))
		return err
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

// nodeOf returns which node has the account's session of that key; "": none.
func nodeOf(ctx context.Context, db storage.DB, k stream.Key, account jid.JID) (node string, err error) {
	var key []byte
	err = db.QueryRow(ctx, `SELECT node, key FROM resumption WHERE id = $1 AND account = $2`, idOf(k), account.String()).Scan(&node, &key)
	switch {
	case errors.Is(err, storage.ErrNoRows) || err == nil && !bytes.Equal(key, k[:]):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("session: %w", err)
	}
	return node, nil
}

// takeOne makes one row this node's, as takeAll does; of a node that is there
// (asked) only what that one has let go. nil: there is none, or none to be had.
func takeOne(ctx context.Context, db storage.DB, k stream.Key, account jid.JID, node string, asked bool) (l *left, err error) {
	err = db.Tx(ctx, func(tx storage.Tx) error {
		l = nil
		list, err := storage.All(ctx, tx, scanLeft, selectLeft+` WHERE id = $1 AND account = $2`, idOf(k), account.String())
		if err != nil || len(list) == 0 || list[0].Key != k {
			return err
		}
		if asked && !list[0].given {
			return nil
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
		_, err = tx.Exec(ctx, `UPDATE resumption SET epoch = epoch + 1, acked = NULL, queue = NULL, buried = 0, given = 0, node = $2 WHERE id = $1`, l.id, node)
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
	var h, span, away, alone, buried, given int64
	var acked *int64
	if err := row.Scan(&l.id, &key, &l.epoch, &h, &span, &away, &state, &alone, &acked, &queue, &buried, &given); err != nil {
		return l, err
	}
	l.epoch++
	l.given = given == 1 || span == 0
	if len(key) != len(l.Key) {
		l.err = errDamaged
		return l, nil
	}
	copy(l.Key[:], key)
	l.H, l.Window = uint64(h), time.Duration(span)*time.Microsecond
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
		l.Sent.Rows, l.err = decodeQueue(queue)
	}
	return l, nil
}

// bury notes of a session of another node what this one has told in its place:
// that it has gone, or if it was replaced that it is over. What that node still
// wants to store for it counts for nothing.
func bury(ctx context.Context, db storage.DB, at sessions.Ref, replaced bool) error {
	account := at.JID.Bare().String()
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
	}, `SELECT id, state FROM resumption WHERE account = $1 AND node = $2`, account, at.Node)
	if err != nil {
		return fmt.Errorf("session of %s: %w", at.Node, err)
	}
	for _, f := range rows {
		if f.at != at.JID {
			continue
		}
		if _, err := db.Exec(ctx, `UPDATE resumption SET buried = 1, epoch = epoch + 1, span = CASE WHEN $3 = 1 THEN 0 ELSE span END WHERE id = $1 AND node = $2`, f.id, at.Node, toInt(replaced)); err != nil {
			return fmt.Errorf("session of %s: %w", at.Node, err)
		}
	}
	return nil
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
