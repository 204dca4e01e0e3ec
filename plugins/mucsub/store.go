package mucsub

import (
	"context"
	"fmt"
	"strings"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/storage"
)

const (
	sqlPut = `INSERT INTO mucsub_subscription (room, account, nick, events, proof) VALUES ($1, $2, $3, $4, $5) ` +
		`ON CONFLICT (room, account) DO UPDATE SET nick = excluded.nick, events = excluded.events, proof = excluded.proof`
	sqlDrop        = `DELETE FROM mucsub_subscription WHERE room = $1 AND account = $2`
	sqlDropRoom    = `DELETE FROM mucsub_subscription WHERE room = $1`
	sqlDropAccount = `DELETE FROM mucsub_subscription WHERE account = $1`
	sqlOfRoom      = `SELECT room, account, nick, events, proof FROM mucsub_subscription WHERE room = $1 ORDER BY account`
	sqlOfAccount   = `SELECT room, account, nick, events, proof FROM mucsub_subscription WHERE account = $1 ORDER BY room`
	sqlCounts      = `SELECT (SELECT COUNT(*) FROM mucsub_subscription WHERE room = $1), (SELECT COUNT(*) FROM mucsub_subscription WHERE account = $2)`

	sqlBan       = `INSERT INTO mucsub_banned (room, jid) VALUES ($1, $2) ON CONFLICT DO NOTHING`
	sqlUnban     = `DELETE FROM mucsub_banned WHERE room = $1 AND jid = $2`
	sqlUnbanRoom = `DELETE FROM mucsub_banned WHERE room = $1`
	sqlBanned    = `SELECT COUNT(*) FROM mucsub_banned WHERE room = $1 AND jid IN ($2, $3)`
)

func scan(r storage.Row) (s subscription, err error) {
	var room, account, events string
	if err = r.Scan(&room, &account, &s.nick, &events, &s.proof); err != nil {
		return s, err
	}
	if s.room, err = jid.Parse(room); err != nil {
		return s, err
	}
	s.account, err = jid.Parse(account)
	s.events = strings.Fields(events)
	return s, err
}

// followers are a room's subscribers.
func (p *part) followers(ctx context.Context, room jid.JID) ([]subscription, error) {
	return p.rooms.Load(ctx, room, func(ctx context.Context, room jid.JID) ([]subscription, error) {
		all, err := storage.All(ctx, p.env.DB, scan, sqlOfRoom, room.String())
		if err != nil {
			return nil, fmt.Errorf("subscribers of %s: %w", room, err)
		}
		return all, nil
	})
}

// followed are an account's subscriptions.
func (p *part) followed(ctx context.Context, account jid.JID) ([]subscription, error) {
	all, err := storage.All(ctx, p.env.DB, scan, sqlOfAccount, account.String())
	if err != nil {
		return nil, fmt.Errorf("subscriptions of %s: %w", account, err)
	}
	return all, nil
}

// put stores a subscription. The error is a *stanza.Error when there are too many,
// or the account was banned.
func (p *part) put(ctx context.Context, room jid.JID, s subscription) error {
	err := p.env.DB.Tx(ctx, func(tx storage.Tx) error {
		var banned int
		if err := tx.QueryRow(ctx, sqlBanned, room.String(), s.account.String(), s.account.Domain()).Scan(&banned); err != nil {
			return err
		}
		if banned > 0 {
			return stanza.NewError(stanza.Forbidden, "")
		}
		if _, err := tx.Exec(ctx, sqlPut, room.String(), s.account.String(), s.nick, s.stored(), s.proof); err != nil {
			return err
		}
		var ofRoom, ofAccount int
		if err := tx.QueryRow(ctx, sqlCounts, room.String(), s.account.String()).Scan(&ofRoom, &ofAccount); err != nil {
			return err
		}
		if ofRoom > p.cfg.PerRoom || ofAccount > p.cfg.PerAccount {
			return stanza.NewError(stanza.ResourceConstraint, "too many subscriptions; end some first")
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("subscription: %w", err)
	}
	p.changed(ctx, room)
	return nil
}

func (p *part) unsubscribe(ctx context.Context, room, account jid.JID) error {
	n, err := p.env.DB.Exec(ctx, sqlDrop, room.String(), account.String())
	if err != nil {
		return fmt.Errorf("end of a subscription: %w", err)
	}
	if n > 0 {
		p.changed(ctx, room)
	}
	return nil
}

// ban ends the subscriptions of an account, or of all of a domain, in the
// transaction that remembers why: one that is being asked for meanwhile comes before
// it, and goes, or is refused.
func (p *part) ban(ctx context.Context, room, who jid.JID) error {
	err := p.env.DB.Tx(ctx, func(tx storage.Tx) error {
		if _, err := tx.Exec(ctx, sqlBan, room.String(), who.String()); err != nil {
			return err
		}
		if who.Local() != "" {
			_, err := tx.Exec(ctx, sqlDrop, room.String(), who.String())
			return err
		}
		all, err := storage.All(ctx, tx, scan, sqlOfRoom, room.String())
		for _, s := range all {
			if err == nil && s.account.Host() == who {
				_, err = tx.Exec(ctx, sqlDrop, room.String(), s.account.String())
			}
		}
		return err
	})
	p.changed(ctx, room) // it may be committed whatever comes back
	if err != nil {
		return fmt.Errorf("end of a subscription: %w", err)
	}
	return nil
}

// unban lets somebody follow who was banned.
func (p *part) unban(ctx context.Context, room, who jid.JID) error {
	if _, err := p.env.DB.Exec(ctx, sqlUnban, room.String(), who.String()); err != nil {
		return fmt.Errorf("end of a ban: %w", err)
	}
	return nil
}

func (p *part) forgetRoom(ctx context.Context, room jid.JID) error {
	for _, text := range []string{sqlDropRoom, sqlUnbanRoom} {
		if _, err := p.env.DB.Exec(ctx, text, room.String()); err != nil {
			return fmt.Errorf("forget subscriptions: %w", err)
		}
	}
	p.changed(ctx, room)
	return nil
}

func (p *part) forgetAccount(ctx context.Context, account jid.JID) error {
	all, err := p.followed(ctx, account)
	if err != nil {
		return err
	}
	if _, err := p.env.DB.Exec(ctx, sqlDropAccount, account.String()); err != nil {
		return fmt.Errorf("forget subscriptions: %w", err)
	}
	for _, s := range all {
		p.changed(ctx, s.room)
	}
	return nil
}

// changed forgets on every node who follows a room.
func (p *part) changed(ctx context.Context, room jid.JID) {
	p.rooms.Drop(room)
	p.env.Forget(ctx, topic, room.String())
}
