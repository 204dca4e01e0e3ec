package admincommands

import (
	"context"
	"errors"
	"fmt"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/storage"
)

// store is the SQL of the plugin's tables.
type store struct{ db storage.DB }

const (
	sqlIsAdmin   = `SELECT count(*) FROM admin_role WHERE domain = $1 AND account = $2`
	sqlAdmins    = `SELECT account FROM admin_role WHERE domain = $1 ORDER BY account`
	sqlNoAdmins  = `DELETE FROM admin_role WHERE domain = $1`
	sqlAddAdmin  = `INSERT INTO admin_role (domain, account) VALUES ($1, $2) ON CONFLICT DO NOTHING`
	sqlListed    = `SELECT jid FROM admin_list WHERE domain = $1 AND kind = $2 ORDER BY jid`
	sqlNoList    = `DELETE FROM admin_list WHERE domain = $1 AND kind = $2`
	sqlAddListed = `INSERT INTO admin_list (domain, kind, jid) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`
	sqlTexts     = `SELECT kind, body, version FROM admin_text WHERE domain = $1`
	sqlSetText   = `INSERT INTO admin_text (domain, kind, body, version) VALUES ($1, $2, $3, $4)
		ON CONFLICT (domain, kind) DO UPDATE SET body = excluded.body, version = CASE WHEN excluded.version = 0 THEN admin_text.version ELSE excluded.version END`
	sqlNoText = `DELETE FROM admin_text WHERE domain = $1 AND kind = $2`
	sqlClaim  = `INSERT INTO admin_told (account, kind, version) VALUES ($1, $2, $3)
		ON CONFLICT (account, kind) DO UPDATE SET version = excluded.version WHERE admin_told.version < excluded.version`
	sqlWaiting  = `SELECT count(*) FROM admin_announcement`
	sqlAnnounce = `INSERT INTO admin_announcement (id, domain, audience, kind, version, body, reached, made_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`
	sqlOnTheWay = `SELECT id, domain, audience, kind, version, body, reached FROM admin_announcement ORDER BY made_at`
	sqlAdvance  = `UPDATE admin_announcement SET reached = $3 WHERE id = $1 AND reached = $2`
	sqlEnd      = `DELETE FROM admin_announcement WHERE id = $1`
)

func (s store) isAdmin(ctx context.Context, domain, account jid.JID) (bool, error) {
	var n int64
	if err := s.db.QueryRow(ctx, sqlIsAdmin, domain.String(), account.String()).Scan(&n); err != nil {
		return false, fmt.Errorf("administrators: %w", err)
	}
	return n > 0, nil
}

func (s store) admins(ctx context.Context, domain jid.JID) ([]string, error) {
	return s.strings(ctx, sqlAdmins, domain.String())
}

func (s store) listed(ctx context.Context, domain jid.JID, kind string) ([]string, error) {
	return s.strings(ctx, sqlListed, domain.String(), kind)
}

func (s store) strings(ctx context.Context, sql string, args ...any) ([]string, error) {
	out, err := storage.All(ctx, s.db, func(r storage.Row) (v string, err error) { return v, r.Scan(&v) }, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("administration: %w", err)
	}
	return out, nil
}

func (s store) setAdmins(ctx context.Context, domain jid.JID, accounts []string) error {
	return s.replace(ctx, accounts, sqlNoAdmins, sqlAddAdmin, domain.String())
}

func (s store) setList(ctx context.Context, domain jid.JID, kind string, list []string) error {
	return s.replace(ctx, list, sqlNoList, sqlAddListed, domain.String(), kind)
}

// replace puts rows in the place of those that there are.
func (s store) replace(ctx context.Context, list []string, remove, add string, key ...any) error {
	err := s.db.Tx(ctx, func(tx storage.Tx) error {
		if _, err := tx.Exec(ctx, remove, key...); err != nil {
			return err
		}
		for _, v := range list {
			if _, err := tx.Exec(ctx, add, append(append([]any{}, key...), v)...); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("administration: %w", err)
	}
	return nil
}

// policy reads what a domain's administrators have set.
func (s store) policy(ctx context.Context, domain jid.JID) (policy, error) {
	p := policy{lists: map[string]map[jid.JID]bool{}, texts: map[string]text{}}
	for _, kind := range []string{black, white} {
		list, err := s.listed(ctx, domain, kind)
		if err != nil {
			return p, err
		}
		p.lists[kind] = map[jid.JID]bool{}
		for _, v := range list {
			if j, err := jid.Parse(v); err == nil {
				p.lists[kind][j] = true
			}
		}
	}
	_, err := storage.All(ctx, s.db, func(r storage.Row) (struct{}, error) {
		var kind string
		var t text
		err := r.Scan(&kind, &t.body, &t.version)
		p.texts[kind] = t
		return struct{}{}, err
	}, sqlTexts, domain.String())
	if err != nil {
		return p, fmt.Errorf("administration: %w", err)
	}
	return p, nil
}

// setText keeps a text; with version 0 that of the one before.
func (s store) setText(ctx context.Context, domain jid.JID, kind string, t text) error {
	return s.exec(ctx, sqlSetText, domain.String(), kind, t.body, t.version)
}

func (s store) deleteText(ctx context.Context, domain jid.JID, kind string) error {
	return s.exec(ctx, sqlNoText, domain.String(), kind)
}

func (s store) exec(ctx context.Context, sql string, args ...any) error {
	if _, err := s.db.Exec(ctx, sql, args...); err != nil {
		return fmt.Errorf("administration: %w", err)
	}
	return nil
}

// claim reports whether the account has not had the text; from now on it has.
func (s store) claim(ctx context.Context, account jid.JID, kind string, version int64) (bool, error) {
	n, err := s.db.Exec(ctx, sqlClaim, account.String(), kind, version)
	if err != nil {
		return false, fmt.Errorf("administration: %w", err)
	}
	return n > 0, nil
}

// addAnnouncement writes one down. The error is a *stanza.Error when too many are on
// their way.
func (s store) addAnnouncement(ctx context.Context, a announcement, now time.Time) error {
	err := s.db.Tx(ctx, func(tx storage.Tx) error {
		var n int64
		if err := tx.QueryRow(ctx, sqlWaiting).Scan(&n); err != nil {
			return err
		}
		if n >= maxAnnouncements {
			return stanza.NewError(stanza.ResourceConstraint, "other announcements are on their way; try again later")
		}
		_, err := tx.Exec(ctx, sqlAnnounce, a.id, a.domain.String(), a.audience, a.kind, a.version, a.body, a.after.String(), now.UnixMicro())
		return err
	})
	if err != nil {
		return fmt.Errorf("announcement: %w", err)
	}
	return nil
}

func (s store) announcements(ctx context.Context) ([]announcement, error) {
	list, err := storage.All(ctx, s.db, func(r storage.Row) (a announcement, err error) {
		var domain, after string
		if err := r.Scan(&a.id, &domain, &a.audience, &a.kind, &a.version, &a.body, &after); err != nil {
			return a, err
		}
		if a.domain, err = jid.Parse(domain); err == nil && after != "" {
			a.after, err = jid.Parse(after)
		}
		return a, err
	}, sqlOnTheWay)
	if err != nil {
		return nil, fmt.Errorf("announcements: %w", err)
	}
	return list, nil
}

// advance notes how far one has come; false: another node has.
func (s store) advance(ctx context.Context, id string, was, is jid.JID) (bool, error) {
	n, err := s.db.Exec(ctx, sqlAdvance, id, was.String(), is.String())
	if err != nil {
		return false, fmt.Errorf("announcement: %w", err)
	}
	return n > 0, nil
}

func (s store) endAnnouncement(ctx context.Context, id string) error { return s.exec(ctx, sqlEnd, id) }

// forget drops what is kept of an account.
func (s store) forget(ctx context.Context, account jid.JID) error {
	var err error
	for _, sql := range []string{`DELETE FROM admin_role WHERE account = $1`, `DELETE FROM admin_told WHERE account = $1`} {
		err = errors.Join(err, s.exec(ctx, sql, account.String()))
	}
	return err
}
