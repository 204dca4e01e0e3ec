package usersearch

import (
	"context"
	"time"

	"parley/plugins"
	"parley/plugins/vcard"
)

const (
	atOnce      = 200              // vCards that one step looks at
	retryPause  = 30 * time.Second // after one that has failed
	expirePause = time.Hour
	expireKey   = "usersearch expire" // says which node forgets searchers
)

// catchUp brings into the directory what was stored while it was not there. Every
// node looks once; what several find they write once.
func (s *service) catchUp(ctx context.Context) {
	for after := ""; ; {
		next, err := s.catchUpFrom(ctx, after)
		switch {
		case ctx.Err() != nil, err == nil && next == "":
			return
		case err != nil:
			s.env.Log.Warn("the user directory is not up to date yet", "err", err)
			if !plugins.Pause(ctx, s.env.Clock, retryPause) {
				return
			}
		default:
			after = next
		}
	}
}

// catchUpFrom is one step, and returns where the next one begins; "": that was all.
func (s *service) catchUpFrom(ctx context.Context, after string) (next string, err error) {
	cards, err := s.cards.Stamps(ctx, after, atOnce)
	if err != nil || len(cards) == 0 {
		return "", err
	}
	have, err := s.store.stamps(ctx, cards)
	if err != nil {
		return "", err
	}
	for _, c := range cards {
		at := have[c.Owner.String()]
		if at == c.At {
			continue
		}
		card, err := s.cards.Stored(ctx, c.Owner)
		if err != nil {
			return "", err
		}
		if card.Card == nil {
			continue
		}
		if err := s.add(ctx, card, at); err != nil {
			return "", err
		}
	}
	return cards[len(cards)-1].Owner.String(), nil
}

// add notes a card that was missed, unless its account was removed meanwhile: whoever has
// the address next has nothing of it.
func (s *service) add(ctx context.Context, card vcard.Stored, had int64) error {
	if err := s.store.missed(ctx, card, had); err != nil {
		return err
	}
	there, err := s.accounts.Exists(ctx, card.Owner)
	if err != nil || there {
		return err
	}
	return s.store.forget(ctx, card.Owner)
}

// expire keeps the table of what searchers have used up small.
func (s *service) expire(ctx context.Context) {
	for plugins.Pause(ctx, s.env.Clock, expirePause) {
		if !s.env.Owns(expireKey) {
			continue
		}
		if err := s.store.expire(ctx, s.env.Clock.Now()); err != nil && ctx.Err() == nil {
			s.env.Log.Warn("searchers are forgotten the next time", "err", err)
		}
	}
}
