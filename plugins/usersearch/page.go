package usersearch

import (
	"context"
	"slices"

	"parley/parser/jid"
	"parley/parser/stanza/rsm"
)

const (
	// maxLooked is how many accounts that fit are looked at for one answer: who is
	// blocked by a thousand others may miss those behind them.
	maxLooked = 1000
	// lookAtLeast is how many are read at a time, however small the page: one search is
	// counted, and must not be a thousand.
	lookAtLeast = 50
)

// page returns who fits and may be shown to somebody, in the order of addresses.
func (s *service) page(ctx context.Context, by jid.JID, domain string, terms []term, page *rsm.Request) ([]entry, error) {
	limit := page.Limit(s.cfg.Results)
	sp := span{limit: max(limit, lookAtLeast)}
	if page != nil {
		sp.after, sp.before, sp.backward = page.After, page.Before, page.Backward
	}
	var out []entry
	for looked := 0; len(out) < limit && looked < maxLooked; looked += sp.limit {
		some, err := s.store.find(ctx, domain, terms, s.cfg.Found, sp)
		if err != nil {
			return nil, err
		}
		for _, e := range some {
			shown, err := s.shown(ctx, by, e.account)
			if err != nil {
				return nil, err
			}
			if shown && len(out) < limit {
				out = append(out, e)
			}
		}
		if len(some) < sp.limit {
			break
		}
		if at := some[len(some)-1].account.String(); sp.backward {
			sp.before = at
		} else {
			sp.after = at
		}
	}
	if sp.backward {
		slices.Reverse(out)
	}
	return out, nil
}

// shown reports whether somebody may find an account: not whoever it has blocked
// (XEP-0191 §3.3: it looks as if it was not there), and not one that is gone.
func (s *service) shown(ctx context.Context, by, account jid.JID) (bool, error) {
	blocked, err := s.blocks.Blocked(ctx, account, by)
	if err != nil || blocked {
		return false, err
	}
	return s.accounts.Exists(ctx, account)
}
