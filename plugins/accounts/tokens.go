package accounts

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"parley/parser/jid"
	"parley/storage"
	"parley/stream"
	"parley/stream/sasl"
)

// The slots of XEP-0484 §5.1.
const (
	slotNew     = "new"
	slotCurrent = "current"
)

const (
	// maxClients is how many clients of one account may hold tokens; beyond it
	// the one whose token ends first has to use its password again.
	maxClients = 100
)

const (
	sqlTokens = `SELECT a.disabled_at, t.slot, t.id, t.secret, t.mechanism, t.expires_at, t.counter
		FROM account a JOIN account_token t ON t.jid = a.jid WHERE a.jid = $1 AND a.removed_at = 0 AND t.client = $2`
	sqlTokenPut = `INSERT INTO account_token (jid, client, slot, id, secret, mechanism, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (jid, client, slot) DO UPDATE SET id = excluded.id, secret = excluded.secret, mechanism = excluded.mechanism, expires_at = excluded.expires_at, counter = 0`
	sqlTokenFind    = `SELECT slot, counter FROM account_token WHERE jid = $1 AND client = $2 AND id = $3`
	sqlTokenDrop    = `DELETE FROM account_token WHERE jid = $1 AND client = $2 AND slot = $3`
	sqlTokenMove    = `UPDATE account_token SET slot = $4 WHERE jid = $1 AND client = $2 AND id = $3`
	sqlTokenCount   = `UPDATE account_token SET counter = $4 WHERE jid = $1 AND client = $2 AND id = $3`
	sqlTokenRevoke  = `DELETE FROM account_token WHERE jid = $1 AND client = $2`
	sqlTokenExpired = `DELETE FROM account_token WHERE jid = $1 AND expires_at <= $2`
	sqlTokenHolders = `SELECT DISTINCT client FROM account_token WHERE jid = $1 AND expires_at > $2`
	sqlTokenClients = `SELECT client FROM account_token WHERE jid = $1 AND client <> $2 GROUP BY client ORDER BY max(expires_at) DESC`
)

// issue makes a token and puts it into the client's new slot; one that was
// issued before and never used is gone (XEP-0484 §3.5).
func (a *Accounts) issue(ctx context.Context, j jid.JID, clientID, mechanism string, ttl time.Duration) (sasl.Token, error) {
	if clientID == "" || len(clientID) > stream.MaxClientID {
		return sasl.Token{}, ErrClient
	}
	now := a.env.Clock.Now()
	t := sasl.Token{ID: newTokenID(), Secret: rand.Text(), Mechanism: mechanism, Expires: now.Add(ttl).Truncate(time.Second)}
	err := a.store.db.Tx(ctx, func(tx storage.Tx) error {
		var disabledAt, removedAt int64
		err := tx.QueryRow(ctx, sqlState, j.String()).Scan(&disabledAt, &removedAt)
		switch {
		case errors.Is(err, storage.ErrNoRows) || err == nil && removedAt != 0:
			return ErrUnknown
		case err != nil:
			return err
		case disabledAt != 0:
			return ErrDisabled
		}
		if err := makeRoom(ctx, tx, j.String(), clientID, now); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, sqlTokenPut, j.String(), clientID, slotNew, t.ID, t.Secret, t.Mechanism, t.Expires.UnixMicro())
		return err
	})
	if err != nil {
		return sasl.Token{}, fmt.Errorf("issue token: %w", err)
	}
	return t, nil
}

// makeRoom drops what has expired, and the clients beyond the bound.
func makeRoom(ctx context.Context, tx storage.Tx, account, clientID string, now time.Time) error {
	if _, err := tx.Exec(ctx, sqlTokenExpired, account, now.UnixMicro()); err != nil {
		return err
	}
	clients, err := storage.All(ctx, tx, func(r storage.Row) (c string, err error) { return c, r.Scan(&c) }, sqlTokenClients, account, clientID)
	if err != nil {
		return err
	}
	for i := maxClients - 1; i < len(clients); i++ {
		if _, err := tx.Exec(ctx, sqlTokenRevoke, account, clients[i]); err != nil {
			return err
		}
	}
	return nil
}

// newTokenID is random: it names a token among those of one client.
func newTokenID() int64 {
	var b [8]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return int64(binary.BigEndian.Uint64(b[:]) >> 1)
}

// TokenHolders are the clients, by user-agent id, that may log in with a token.
func (a *Accounts) TokenHolders(ctx context.Context, j jid.JID) (map[string]bool, error) {
	all, err := storage.All(ctx, a.store.db, func(r storage.Row) (c string, err error) { return c, r.Scan(&c) }, sqlTokenHolders, j.String(), a.env.Clock.Now().UnixMicro())
	if err != nil {
		return nil, fmt.Errorf("clients with tokens: %w", err)
	}
	out := make(map[string]bool, len(all))
	for _, c := range all {
		out[c] = true
	}
	return out, nil
}

// RevokeTokens forgets a client's tokens (XEP-0484 §3.6).
func (a *Accounts) RevokeTokens(ctx context.Context, j jid.JID, clientID string) error {
	if _, err := a.store.db.Exec(ctx, sqlTokenRevoke, j.String(), clientID); err != nil {
		return fmt.Errorf("revoke tokens: %w", err)
	}
	return nil
}

// tokens reads a client's slots. Errors: sasl.ErrDisabled, with the tokens.
func (s store) tokens(ctx context.Context, account, clientID string) (found sasl.Tokens, err error) {
	var isDisabled bool
	type row struct {
		slot  string
		token sasl.Token
	}
	rows, err := storage.All(ctx, s.db, func(r storage.Row) (x row, err error) {
		var disabledAt, expires int64
		err = r.Scan(&disabledAt, &x.slot, &x.token.ID, &x.token.Secret, &x.token.Mechanism, &expires, &x.token.Count)
		x.token.Expires = moment(expires)
		isDisabled = disabledAt != 0
		return x, err
	}, sqlTokens, account, clientID)
	if err != nil {
		return sasl.Tokens{}, fmt.Errorf("read tokens: %w", err)
	}
	for i := range rows {
		if rows[i].slot == slotNew {
			found.New = &rows[i].token
		} else {
			found.Current = &rows[i].token
		}
	}
	if isDisabled {
		return found, sasl.ErrDisabled
	}
	return found, nil
}

// used records a use (sasl.TokenStore): a token of the new slot becomes the
// current one, whose predecessor ends with that (XEP-0484 §3.5, §5.1).
func (s store) used(ctx context.Context, account string, use sasl.TokenUse) error {
	return s.db.Tx(ctx, func(tx storage.Tx) error {
		var slot string
		var counter int64
		err := tx.QueryRow(ctx, sqlTokenFind, account, use.ClientID, use.ID).Scan(&slot, &counter)
		switch {
		case errors.Is(err, storage.ErrNoRows):
			return sasl.ErrUnknownUser
		case err != nil:
			return fmt.Errorf("use token: %w", err)
		case use.Count > 0 && use.Count <= counter:
			return sasl.ErrReplay
		}
		if slot == slotNew {
			if _, err := tx.Exec(ctx, sqlTokenDrop, account, use.ClientID, slotCurrent); err != nil {
				return fmt.Errorf("use token: %w", err)
			}
			if _, err := tx.Exec(ctx, sqlTokenMove, account, use.ClientID, use.ID, slotCurrent); err != nil {
				return fmt.Errorf("use token: %w", err)
			}
		}
		if use.Count > counter {
			if _, err := tx.Exec(ctx, sqlTokenCount, account, use.ClientID, use.ID, use.Count); err != nil {
				return fmt.Errorf("use token: %w", err)
			}
		}
		return nil
	})
}
