package usersearch

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"parley/parser/jid"
	"parley/plugins/vcard"
	"parley/storage"
)

type store struct{ db storage.DB }

const upsertEntry = `INSERT INTO user_search_entry (account, domain, given, family, nick, email, card_at) VALUES ($1, $2, $3, $4, $5, $6, $7)
	ON CONFLICT (account) DO UPDATE SET domain = excluded.domain, given = excluded.given, family = excluded.family, nick = excluded.nick, email = excluded.email, card_at = excluded.card_at`

var (
	stmtEntry = &storage.Stmt{Name: "usersearch.entry", Idempotent: true, SQL: upsertEntry}
	// stmtMissed is for what nobody else has written since it was looked at.
	stmtMissed = &storage.Stmt{Name: "usersearch.missed", Must: true, SQL: upsertEntry + ` WHERE user_search_entry.card_at = $8`}
	stmtUnword = &storage.Stmt{Name: "usersearch.unword", Idempotent: true, SQL: `DELETE FROM user_search_word WHERE account = $1`}
	stmtWord   = &storage.Stmt{Name: "usersearch.word", Idempotent: true,
		SQL: `INSERT INTO user_search_word (domain, field, word, account) VALUES ($1, $2, $3, $4) ON CONFLICT (domain, field, word, account) DO NOTHING`}
	stmtForget = []*storage.Stmt{
		{Name: "usersearch.forget-entry", Idempotent: true, SQL: `DELETE FROM user_search_entry WHERE account = $1`},
		{Name: "usersearch.forget-words", Idempotent: true, SQL: `DELETE FROM user_search_word WHERE account = $1`},
		{Name: "usersearch.forget-choice", Idempotent: true, SQL: `DELETE FROM user_search_choice WHERE account = $1`},
		{Name: "usersearch.forget-rate", Idempotent: true, SQL: `DELETE FROM user_search_rate WHERE searcher = $1`},
	}
)

const (
	sqlChoice = `SELECT found FROM user_search_choice WHERE account = $1`
	sqlChoose = `INSERT INTO user_search_choice (account, found) VALUES ($1, $2) ON CONFLICT (account) DO UPDATE SET found = excluded.found`
	// sqlTake counts one search, unless that were one too many: $2 is now, $3 what
	// a search uses up, $4 both together, $5 how far ahead one may be before it.
	sqlTake = `INSERT INTO user_search_rate (searcher, used_until) VALUES ($1, $4) ON CONFLICT (searcher) DO UPDATE
		SET used_until = CASE WHEN user_search_rate.used_until > $2 THEN user_search_rate.used_until ELSE $2 END + $3
		WHERE user_search_rate.used_until <= $5`
	sqlExpire = `DELETE FROM user_search_rate WHERE used_until < $1`
)

// choice is what an account has said about being found; otherwise, if it has said
// nothing.
func (s store) choice(ctx context.Context, account jid.JID, otherwise bool) (found bool, err error) {
	err = s.db.QueryRow(ctx, sqlChoice, account.String()).Scan(&found)
	switch {
	case errors.Is(err, storage.ErrNoRows):
		return otherwise, nil
	case err != nil:
		return false, fmt.Errorf("whether an account is found: %w", err)
	}
	return found, nil
}

func (s store) choose(ctx context.Context, account jid.JID, found bool) error {
	if _, err := s.db.Exec(ctx, sqlChoose, account.String(), found); err != nil {
		return fmt.Errorf("whether an account is found: %w", err)
	}
	return nil
}

// allowance is what a searcher may do: one search in every, burst of them at once.
type allowance struct {
	every time.Duration
	burst int
}

// take counts a search of somebody, on whatever node; false: it is one too many.
func (s store) take(ctx context.Context, searcher string, now time.Time, a allowance) (bool, error) {
	at, cost := now.UnixMicro(), a.every.Microseconds()
	n, err := s.db.Exec(ctx, sqlTake, searcher, at, cost, at+cost, at+cost*int64(a.burst-1))
	if err != nil {
		return false, fmt.Errorf("count a search: %w", err)
	}
	return n > 0, nil
}

// expire forgets who has used up nothing any more.
func (s store) expire(ctx context.Context, now time.Time) error {
	if _, err := s.db.Exec(ctx, sqlExpire, now.UnixMicro()); err != nil {
		return fmt.Errorf("forget searchers: %w", err)
	}
	return nil
}

func (s store) forget(ctx context.Context, account jid.JID) error {
	var w storage.WriteSet
	for _, stmt := range stmtForget {
		w.Add(stmt, account.String())
	}
	if err := s.db.Commit(ctx, &w); err != nil {
		return fmt.Errorf("forget an account: %w", err)
	}
	return nil
}

// term is a word that a field has to have: one between the two.
type term struct{ field, from, to string }

// span is what is read of those who fit: in the order of addresses, between two of
// them ("": no bound), or from the end.
type span struct {
	after, before string
	backward      bool
	limit         int
}

// find returns who fits and is found.
func (s store) find(ctx context.Context, domain string, terms []term, otherwise bool, sp span) ([]entry, error) {
	sql, args := query(domain, terms, otherwise, sp)
	out, err := storage.All(ctx, s.db, func(row storage.Row) (e entry, err error) {
		var account string
		if err = row.Scan(&account, &e.given, &e.family, &e.nick, &e.mail); err != nil {
			return e, err
		}
		e.account, err = jid.Parse(account)
		return e, err
	}, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("search for people: %w", err)
	}
	return out, nil
}

// query is find's: as many conditions as there are terms.
func query(domain string, terms []term, otherwise bool, sp span) (sql string, args []any) {
	var b strings.Builder
	arg := func(v any) string {
		args = append(args, v)
		return "$" + strconv.Itoa(len(args))
	}
	in := arg(domain)
	b.WriteString(`SELECT e.account, e.given, e.family, e.nick, e.email FROM user_search_entry e LEFT JOIN user_search_choice c ON c.account = e.account
		WHERE e.domain = ` + in + ` AND coalesce(c.found, ` + arg(otherwise) + `) AND e.account > ` + arg(sp.after))
	if sp.before != "" {
		b.WriteString(` AND e.account < ` + arg(sp.before))
	}
	for _, t := range terms {
		b.WriteString(` AND e.account IN (SELECT w.account FROM user_search_word w WHERE w.domain = ` + in + ` AND w.field = ` + arg(t.field) +
			` AND w.word >= ` + arg(t.from) + ` AND w.word <= ` + arg(t.to) + `)`)
	}
	b.WriteString(` ORDER BY e.account`)
	if sp.backward {
		b.WriteString(` DESC`)
	}
	b.WriteString(` LIMIT ` + arg(sp.limit))
	return b.String(), args
}

// stamps are which vCards the directory has, of those accounts.
func (s store) stamps(ctx context.Context, of []vcard.Stored) (map[string]int64, error) {
	args, places := make([]any, len(of)), make([]string, len(of))
	for i, one := range of {
		args[i], places[i] = one.Owner.String(), "$"+strconv.Itoa(i+1)
	}
	out := make(map[string]int64, len(of))
	_, err := storage.All(ctx, s.db, func(row storage.Row) (struct{}, error) {
		var account string
		var at int64
		err := row.Scan(&account, &at)
		out[account] = at
		return struct{}{}, err
	}, `SELECT account, card_at FROM user_search_entry WHERE account IN (`+strings.Join(places, ", ")+`)`, args...)
	if err != nil {
		return nil, fmt.Errorf("look for vCards in the directory: %w", err)
	}
	return out, nil
}

// missed writes what the directory has missed, in the place of what it had; 0: nothing.
// Who was faster has written what is newer.
func (s store) missed(ctx context.Context, card vcard.Stored, had int64) error {
	var w storage.WriteSet
	write(card, &w, stmtMissed, had)
	if err := s.db.Commit(ctx, &w); err != nil && !errors.Is(err, storage.ErrStale) {
		return fmt.Errorf("bring the directory up to date: %w", err)
	}
	return nil
}
