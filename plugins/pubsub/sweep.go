package pubsub

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"parley/parser/jid"
	"parley/plugins"
	"parley/processor"
	"parley/router/sessions"
	"parley/storage"
)

const (
	sweepKey    = "pubsub.sweep" // one node of a cluster does it
	sweepAtOnce = 500

	sqlExpired  = `SELECT node, seq FROM pubsub_item WHERE expires_at > 0 AND expires_at <= $1 ORDER BY expires_at LIMIT $2`
	sqlExpire   = `DELETE FROM pubsub_item WHERE node = $1 AND seq = $2 AND expires_at > 0 AND expires_at <= $3 RETURNING id, size`
	sqlAddress  = `SELECT service, name FROM pubsub_node WHERE id = $1`
	sqlSubsOver = `DELETE FROM pubsub_subscription WHERE expires_at > 0 AND expires_at <= $1`
	sqlTempsOf  = `SELECT DISTINCT bare FROM pubsub_subscription WHERE temp AND bare > $1 ORDER BY bare LIMIT $2`

	sqlAccountNodes   = `SELECT service, name FROM pubsub_node WHERE (account = $1 OR service = $1) AND base = ''`
	sqlNodesWith      = `SELECT n.service, n.name FROM pubsub_affiliation a JOIN pubsub_node n ON n.id = a.node WHERE a.jid = $1`
	sqlUnaffiliateAll = `DELETE FROM pubsub_affiliation WHERE jid = $1`
	sqlUnsubscribeAll = `DELETE FROM pubsub_subscription WHERE bare = $1`
	sqlUnmoveAll      = `DELETE FROM pubsub_moved WHERE account = $1`
)

// sweep removes what has expired, now and then.
func (c *component) sweep(ctx context.Context) {
	for plugins.Pause(ctx, c.env.Clock, c.cfg.Expiry) {
		if !c.env.Owns(sweepKey) {
			continue
		}
		if err := c.sweepOnce(ctx, c.expired); err != nil && ctx.Err() == nil {
			c.env.Log.Error("what has expired is left for the next time", "err", err)
		}
	}
}

// sweepOnce removes all that is over; gone hears of items, by their nodes.
func (c *component) sweepOnce(ctx context.Context, gone func(ctx context.Context, node int64, ids []string) error) error {
	for {
		n, over, err := c.store.expire(ctx, sweepAtOnce)
		if err != nil {
			return err
		}
		for node, ids := range over {
			if err := gone(ctx, node, ids); err != nil {
				return err
			}
		}
		if n < sweepAtOnce {
			break
		}
	}
	if _, err := c.env.DB.Exec(ctx, sqlSubsOver, c.store.now()); err != nil {
		return fmt.Errorf("expired subscriptions: %w", err)
	}
	return c.sweepTemporary(ctx)
}

// expired lets features know of items that are over. Nobody else is told: they
// were seen no more before.
func (c *component) expired(ctx context.Context, node int64, ids []string) error {
	var service string
	var at Address
	err := c.env.DB.QueryRow(ctx, sqlAddress, node).Scan(&service, &at.Node)
	if errors.Is(err, storage.ErrNoRows) {
		return nil
	}
	if err == nil {
		err = parseInto(&at.Service, service)
	}
	if err != nil {
		return fmt.Errorf("expired items: %w", err)
	}
	n, err := c.dir.node(ctx, at)
	if err != nil || n == nil {
		return err
	}
	fire(ctx, c, Retracted, &Retraction{Node: n, House: true, IDs: ids})
	return nil
}

// sweepTemporary ends subscriptions of those who left while nobody looked: with
// their node of the cluster.
func (c *component) sweepTemporary(ctx context.Context) error {
	after := ""
	for {
		all, err := storage.All(ctx, c.env.DB, scanID, sqlTempsOf, after, sweepAtOnce)
		if err != nil {
			return fmt.Errorf("temporary subscriptions: %w", err)
		}
		for _, s := range all {
			after = s
			bare, err := jid.Parse(s)
			if err != nil {
				return fmt.Errorf("temporary subscriptions: %w", err)
			}
			if err := c.endTemporary(ctx, bare, c.away); err != nil {
				return err
			}
		}
		if len(all) < sweepAtOnce {
			return nil
		}
	}
}

// away reports whether nobody is available at an address.
func (c *component) away(j jid.JID) bool {
	return !slices.ContainsFunc(c.env.Sessions.Account(j.Bare()), func(e *sessions.Entry) bool { return e.Available && (j.IsBare() || e.JID == j) })
}

// endTemporary ends those of somebody's temporary subscriptions whose address is
// over.
func (c *component) endTemporary(ctx context.Context, bare jid.JID, over func(jid.JID) bool) error {
	temps, err := c.store.temporaries(ctx, bare)
	if err != nil {
		return err
	}
	for _, t := range temps {
		if !over(t.JID) {
			continue
		}
		n, err := c.dir.node(ctx, t.at)
		if err != nil {
			return err
		}
		if n == nil {
			continue
		}
		if err := c.end(ctx, n, t.Subscription, jid.JID{}); err != nil {
			return err
		}
	}
	return nil
}

// expire removes items that are over and returns how many, at most limit, and
// which, by their nodes.
func (s *store) expire(ctx context.Context, limit int) (int, map[int64][]string, error) {
	now := s.now()
	type place struct{ node, seq int64 }
	due, err := storage.All(ctx, s.env.DB, func(r storage.Row) (p place, err error) {
		err = r.Scan(&p.node, &p.seq)
		return p, err
	}, sqlExpired, now, limit)
	if err != nil {
		return 0, nil, fmt.Errorf("expired items: %w", err)
	}
	over := map[int64][]string{}
	byNode := map[int64][]int64{}
	for _, p := range due {
		byNode[p.node] = append(byNode[p.node], p.seq)
	}
	for node, seqs := range byNode {
		err := s.env.DB.Tx(ctx, func(tx storage.Tx) error {
			var seq, count, bytes int64
			err := tx.QueryRow(ctx, sqlTurn, node, int64(0), int64(0)).Scan(&seq, &count, &bytes)
			over[node] = nil
			if errors.Is(err, storage.ErrNoRows) { // it has just been deleted: nothing of it stays to be found again
				_, err = tx.Exec(ctx, sqlPurge, node)
				return err
			}
			if err != nil {
				return err
			}
			for _, at := range seqs {
				gone, err := storage.All(ctx, tx, func(r storage.Row) (it Item, err error) {
					err = r.Scan(&it.ID, &it.size)
					return it, err
				}, sqlExpire, node, at, now)
				if err != nil {
					return err
				}
				for _, it := range gone {
					over[node] = append(over[node], it.ID)
					count, bytes = count-1, bytes-int64(it.size)
				}
			}
			_, err = tx.Exec(ctx, sqlCounts, node, count, bytes)
			return err
		})
		if err != nil {
			return 0, nil, fmt.Errorf("expired items: %w", err)
		}
	}
	return len(due), over, nil
}

// removed forgets an account: its nodes, unless others own them, too; what it is
// to the nodes of others; what it has subscribed to.
func (c *component) removed(ctx context.Context, account jid.JID) (processor.Verdict, error) {
	own, err := c.store.addresses(ctx, sqlAccountNodes, account)
	if err != nil {
		return processor.Continue, err
	}
	for _, at := range own {
		if err := c.store.bequeath(ctx, at, account); err != nil {
			return processor.Continue, err
		}
		c.dir.changed(ctx, at)
	}
	others, err := c.store.addresses(ctx, sqlNodesWith, account)
	if err != nil {
		return processor.Continue, err
	}
	for _, text := range []string{sqlUnaffiliateAll, sqlUnsubscribeAll, sqlUnmoveAll} {
		if _, err := c.env.DB.Exec(ctx, text, account.String()); err != nil {
			return processor.Continue, fmt.Errorf("forget %s: %w", account, err)
		}
	}
	for _, at := range others {
		c.dir.changed(ctx, at)
	}
	return processor.Continue, nil
}

// addresses reads addresses of nodes.
func (s *store) addresses(ctx context.Context, text string, of jid.JID) ([]Address, error) {
	out, err := storage.All(ctx, s.env.DB, func(r storage.Row) (a Address, err error) {
		var service string
		if err := r.Scan(&service, &a.Node); err != nil {
			return a, err
		}
		return a, parseInto(&a.Service, service)
	}, text, of.String())
	if err != nil {
		return nil, fmt.Errorf("nodes of %s: %w", of, err)
	}
	return out, nil
}

// bequeath lets another owner have a node in the place of an account that goes;
// without one, it goes as well.
func (s *store) bequeath(ctx context.Context, at Address, account jid.JID) error {
	found, err := s.nodes(ctx, at.Service, at.Node, true)
	if err != nil || len(found) == 0 {
		return err
	}
	n := found[0]
	return s.tx(ctx, n, func(tx storage.Tx) error {
		if _, err := tx.Exec(ctx, sqlUnaffiliate, n.id, account.String()); err != nil {
			return err
		}
		var owners int64
		if err := tx.QueryRow(ctx, sqlCountOwners, n.id).Scan(&owners); err != nil {
			return err
		}
		if owners == 0 || at.Service == account {
			return deleteNode(ctx, tx, n)
		}
		_, err := tx.Exec(ctx, sqlCharge, n.id)
		return err
	})
}
