package resumption

import (
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
		SQL: `INSERT INTO resumption (id, key, account, epoch, h, span, away, state, alone, acked, queue) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
ON CONFLICT (id) DO UPDATE SET h = excluded.h, away = excluded.away, state = excluded.state, alone = excluded.alone, acked = excluded.acked, queue = excluded.queue
WHERE resumption.epoch = excluded.epoch AND resumption.h <= excluded.h`,
		Idempotent: true,
	}
	writeCount = storage.Stmt{
		Name:       "resumption.count",
		SQL:        `UPDATE resumption SET h = $3 WHERE id = $1 AND epoch = $2 AND h < $3`,
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

// left is a row of an earlier process.
type left struct {
	stream.Lasting
	id    int64
	epoch int64
	err   error // why it cannot go on
}

// takeAll reads every row and makes them this process's: in one transaction,
// so that what another one still writes comes before or counts for nothing.
// What was noted at an orderly stop holds once.
func takeAll(ctx context.Context, db storage.DB) (list []left, err error) {
	err = db.Tx(ctx, func(tx storage.Tx) error {
		list, err = storage.All(ctx, tx, scanLeft, `SELECT id, key, epoch, h, span, away, state, alone, acked, queue FROM resumption`)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE resumption SET epoch = epoch + 1, acked = NULL, queue = NULL`)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("sessions: %w", err)
	}
	ofAccount := map[jid.JID]int{} // a device that came right before the end may not be in the others' rows
	for _, l := range list {
		ofAccount[l.Ref.JID.Bare()]++
	}
	for i := range list {
		list[i].Over = list[i].Over || ofAccount[list[i].Ref.JID.Bare()] > 1
	}
	return list, nil
}

func scanLeft(row storage.Row) (l left, err error) {
	var key, state, queue []byte
	var h, span, away, alone int64
	var acked *int64
	if err := row.Scan(&l.id, &key, &l.epoch, &h, &span, &away, &state, &alone, &acked, &queue); err != nil {
		return l, err
	}
	l.epoch++
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
	l.Ref, l.State, l.Over = e.Session, *e.State, alone == 0
	if acked != nil {
		l.Sent = &stream.Outbound{Acked: uint64(*acked)}
		l.Sent.Rows, l.err = decodeQueue(queue)
	}
	return l, nil
}

func deleteAccount(ctx context.Context, db storage.DB, account jid.JID) error {
	if _, err := db.Exec(ctx, `DELETE FROM resumption WHERE account = $1`, account.String()); err != nil {
		return fmt.Errorf("sessions of %s: %w", account, err)
	}
	return nil
}
