package inbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"parley/parser/jid"
	"parley/storage"
)

const (
	sqlUpto    = `SELECT upto FROM inbox_account WHERE owner = $1`
	sqlChats   = `SELECT peer, last, said, unread, seen FROM inbox_chat WHERE owner = $1`
	sqlMarks   = `SELECT peer, id FROM inbox_mark WHERE owner = $1`
	sqlBegin   = `INSERT INTO inbox_account (owner, upto) VALUES ($1, $2) ON CONFLICT (owner) DO NOTHING`
	sqlGoOn    = `UPDATE inbox_account SET upto = $2 WHERE owner = $1 AND upto = $3`
	sqlPutChat = `INSERT INTO inbox_chat (owner, peer, last, said, unread, seen) VALUES ($1, $2, $3, $4, $5, $6) ` +
		`ON CONFLICT (owner, peer) DO UPDATE SET last = excluded.last, said = excluded.said, unread = excluded.unread, seen = excluded.seen`
	sqlDropChat = `DELETE FROM inbox_chat WHERE owner = $1 AND peer = $2`
	sqlDropMark = `DELETE FROM inbox_mark WHERE owner = $1 AND peer = $2 AND id <= $3`
)

// sqlForget is everything that an account has.
var sqlForget = [...]string{
	`DELETE FROM inbox_account WHERE owner = $1`,
	`DELETE FROM inbox_chat WHERE owner = $1`,
	`DELETE FROM inbox_mark WHERE owner = $1`,
	`DELETE FROM inbox_room WHERE owner = $1`,
	`DELETE FROM inbox_mention WHERE owner = $1`,
	`DELETE FROM inbox_notify WHERE owner = $1`,
}

// load returns what was counted when it was kept last.
func (b *Inbox) load(ctx context.Context, account jid.JID) (*box, error) {
	x := &box{account: account, chats: map[jid.JID]*chat{}}
	fail := func(err error) (*box, error) { return nil, fmt.Errorf("inbox of %s: %w", account, err) }
	// The place first: when another count is kept meanwhile, this one is not.
	err := b.env.DB.QueryRow(ctx, sqlUpto, account.String()).Scan(&x.upto)
	if err != nil && !errors.Is(err, storage.ErrNoRows) {
		return fail(err)
	}
	chats, err := storage.All(ctx, b.env.DB, func(r storage.Row) (*chat, error) {
		var c chat
		var peer string
		if err := r.Scan(&peer, &c.last, &c.said, &c.unread, &c.seen); err != nil {
			return nil, err
		}
		var err error
		c.peer, err = jid.Parse(peer)
		return &c, err
	}, sqlChats, account.String())
	if err != nil {
		return fail(err)
	}
	for _, c := range chats {
		x.chats[c.peer] = c
	}
	if x.marks, err = b.marks(ctx, account); err != nil {
		return fail(err)
	}
	return x, nil
}

// marks are how far an account has read, by conversation.
func (b *Inbox) marks(ctx context.Context, account jid.JID) (map[jid.JID]int64, error) {
	type mark struct {
		peer jid.JID
		id   int64
	}
	all, err := storage.All(ctx, b.env.DB, func(r storage.Row) (m mark, err error) {
		var peer string
		if err = r.Scan(&peer, &m.id); err != nil {
			return m, err
		}
		m.peer, err = jid.Parse(peer)
		return m, err
	}, sqlMarks, account.String())
	if err != nil {
		return nil, err
	}
	marks := make(map[jid.JID]int64, len(all))
	for _, m := range all {
		marks[m.peer] = m.id
	}
	return marks, nil
}

// save keeps what is counted up to an id, unless somebody else has: then what is
// kept is as good.
func (p *part) save(ctx context.Context, b *box, upto int64) error {
	b.trim(p.cfg.Chats)
	var changed []*chat
	for _, c := range b.chats {
		if c.changed {
			changed = append(changed, c)
		}
	}
	if len(changed)+len(b.gone) == 0 && upto == b.upto {
		return nil
	}
	owner := b.account.String()
	err := p.env.DB.Tx(ctx, func(tx storage.Tx) error {
		var n int64
		var err error
		if b.upto == 0 {
			n, err = tx.Exec(ctx, sqlBegin, owner, upto)
		} else {
			n, err = tx.Exec(ctx, sqlGoOn, owner, upto, b.upto)
		}
		if err != nil || n == 0 {
			return err
		}
		for _, c := range changed {
			if _, err := tx.Exec(ctx, sqlPutChat, owner, c.peer.String(), c.last, c.said, c.unread, c.seen); err != nil {
				return err
			}
		}
		for _, c := range b.gone {
			if _, err := tx.Exec(ctx, sqlDropChat, owner, c.peer.String()); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, sqlDropMark, owner, c.peer.String(), c.last); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("keep what is counted: %w", err)
	}
	for _, c := range changed {
		c.changed = false
	}
	b.upto, b.gone = upto, nil
	return nil
}

// trim leaves out the conversations that are silent for longest, beyond most.
func (b *box) trim(most int) {
	if len(b.chats) <= most {
		return
	}
	all := make([]*chat, 0, len(b.chats))
	for _, c := range b.chats {
		all = append(all, c)
	}
	slices.SortFunc(all, func(x, y *chat) int { return cmp.Compare(y.said, x.said) })
	for _, c := range all[most:] {
		b.gone = append(b.gone, c)
		delete(b.chats, c.peer)
	}
}
