package pubsub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"parley/parser/jid"
	"parley/storage"
)

const (
	subColumns     = `s.node, n.name, s.jid, s.state, s.options, s.temp, s.expires_at`
	subFrom        = ` FROM pubsub_subscription s JOIN pubsub_node n ON n.id = s.node `
	subLive        = ` AND (s.expires_at = 0 OR s.expires_at > $2)`
	sqlSubsOf      = `SELECT ` + subColumns + subFrom + `WHERE s.node = $1` + subLive
	sqlSub         = sqlSubsOf + ` AND s.jid = $3`
	sqlMySubs      = `SELECT ` + subColumns + subFrom + `WHERE s.bare = $1` + subLive + ` AND n.service = $3`
	sqlIsSub       = `SELECT count(*) FROM pubsub_subscription s WHERE s.node = $1` + subLive + ` AND s.bare = $3 AND s.state = 'subscribed'`
	sqlSubscribers = `SELECT count(*) FROM pubsub_subscription s WHERE s.node = $1` + subLive + ` AND s.state = 'subscribed'`
	sqlCountSub    = `SELECT count(*) FROM pubsub_subscription WHERE node = $1 AND jid <> $2`
	sqlCountMine   = `SELECT count(*)` + subFrom + `WHERE s.bare = $1 AND s.asked AND n.service = $2 AND (s.node <> $3 OR s.jid <> $4)`
	sqlSetSub      = `INSERT INTO pubsub_subscription (node, jid, bare, state, options, temp, expires_at, created_at, asked) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
		ON CONFLICT (node, jid) DO UPDATE SET state = excluded.state, options = excluded.options, temp = excluded.temp, expires_at = excluded.expires_at,
			asked = pubsub_subscription.asked OR excluded.asked`
	sqlUnsub  = `DELETE FROM pubsub_subscription WHERE node = $1 AND jid = $2`
	sqlIsNode = `SELECT id FROM pubsub_node WHERE id = $1`
	sqlTemps  = `SELECT s.node, n.name, s.jid, s.state, s.options, s.temp, s.expires_at, n.service` + subFrom + `WHERE s.temp AND s.bare = $1`
)

func scanSub(r storage.Row) (Subscription, error) {
	return scanSubAnd(r)
}

// scanSubAnd reads a subscription and what stands behind it.
func scanSubAnd(r storage.Row, more ...any) (s Subscription, err error) {
	var at, state, options string
	var expires int64
	dest := append([]any{&s.node, &s.name, &at, &state, &options, &s.Options.Temp, &expires}, more...)
	if err := r.Scan(dest...); err != nil {
		return s, err
	}
	temp := s.Options.Temp
	s.State, s.Options = State(state), defaultOptions()
	if err := json.Unmarshal([]byte(options), &s.Options); err != nil {
		return s, fmt.Errorf("options of a subscription: %w", err)
	}
	s.Options.Temp = temp
	return s, parseInto(&s.JID, at)
}

func (s *store) now() int64 { return s.env.Clock.Now().UnixMicro() }

// subscriptions are those of a node, in no order.
func (s *store) subscriptions(ctx context.Context, n *Node) ([]Subscription, error) {
	out, err := storage.All(ctx, s.env.DB, scanSub, sqlSubsOf, n.id, s.now())
	if err != nil {
		return nil, fmt.Errorf("subscriptions to node %s of %s: %w", n.Node, n.Service, err)
	}
	return out, nil
}

// subscription is that of exactly this address; nil: there is none.
func (s *store) subscription(ctx context.Context, n *Node, who jid.JID) (*Subscription, error) {
	out, err := storage.All(ctx, s.env.DB, scanSub, sqlSub, n.id, s.now(), who.String())
	if err != nil {
		return nil, fmt.Errorf("subscription to node %s of %s: %w", n.Node, n.Service, err)
	}
	if len(out) == 0 {
		return nil, nil
	}
	return &out[0], nil
}

// subscribed reports whether one of the addresses of somebody, bare, is.
func (s *store) subscribed(ctx context.Context, n *Node, bare jid.JID) (bool, error) {
	var have int64
	if err := s.env.DB.QueryRow(ctx, sqlIsSub, n.id, s.now(), bare.String()).Scan(&have); err != nil {
		return false, fmt.Errorf("subscription to node %s of %s: %w", n.Node, n.Service, err)
	}
	return have > 0, nil
}

// subscriptionsOf are those of an address, bare, at a service, or with a node at
// that one.
func (s *store) subscriptionsOf(ctx context.Context, service, bare jid.JID, node string) ([]Subscription, error) {
	text, args := sqlMySubs, []any{bare.String(), s.now(), service.String()}
	if node != "" {
		text, args = text+` AND n.name = $4`, append(args, node)
	}
	out, err := storage.All(ctx, s.env.DB, scanSub, text+` ORDER BY n.name, s.jid`, args...)
	if err != nil {
		return nil, fmt.Errorf("subscriptions of %s: %w", bare, err)
	}
	return out, nil
}

// setSubscription stores a subscription. Errors: policy-violation.
func (s *store) setSubscription(ctx context.Context, n *Node, sub Subscription, l *Limits) error {
	options, err := json.Marshal(sub.Options)
	if err != nil {
		return fmt.Errorf("options of a subscription: %w", err)
	}
	var expires int64
	if !sub.Options.Expire.IsZero() {
		expires = sub.Options.Expire.UnixMicro()
	}
	return s.tx(ctx, n, func(tx storage.Tx) error {
		var id, ofNode, mine int64
		err := tx.QueryRow(ctx, sqlIsNode, n.id).Scan(&id)
		if errors.Is(err, storage.ErrNoRows) {
			return errNoNode()
		}
		if err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, sqlCountSub, n.id, sub.JID.String()).Scan(&ofNode); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, sqlCountMine, sub.JID.Bare().String(), n.Service.String(), n.id, sub.JID.String()).Scan(&mine); err != nil {
			return err
		}
		switch {
		case ofNode >= int64(l.Subscribers):
			return tooMany(fmt.Sprintf("the node has %d subscriptions, which is as many as it may have (max_subscribers)", ofNode))
		case sub.asked && mine >= int64(l.Subscriptions):
			return tooMany(fmt.Sprintf("there are %d subscriptions, which is as many as one account may have here (max_subscriptions)", mine))
		}
		_, err = tx.Exec(ctx, sqlSetSub, n.id, sub.JID.String(), sub.JID.Bare().String(), string(sub.State), string(options), sub.Options.Temp, expires, s.now(), sub.asked)
		return err
	})
}

// unsubscribe reports whether there was one.
func (s *store) unsubscribe(ctx context.Context, n *Node, who jid.JID) (bool, error) {
	gone, err := s.env.DB.Exec(ctx, sqlUnsub, n.id, who.String())
	if err != nil {
		return false, fmt.Errorf("subscription to node %s of %s: %w", n.Node, n.Service, err)
	}
	return gone > 0, nil
}

// temporary is a subscription that ends with presence.
type temporary struct {
	Subscription
	at Address
}

// temporaries are those of somebody, bare.
func (s *store) temporaries(ctx context.Context, bare jid.JID) ([]temporary, error) {
	out, err := storage.All(ctx, s.env.DB, func(r storage.Row) (t temporary, err error) {
		var service string
		if t.Subscription, err = scanSubAnd(r, &service); err != nil {
			return t, err
		}
		t.at.Node = t.name
		return t, parseInto(&t.at.Service, service)
	}, sqlTemps, bare.String())
	if err != nil {
		return nil, fmt.Errorf("temporary subscriptions of %s: %w", bare, err)
	}
	return out, nil
}

// countSubscribers is how many there are.
func (s *store) countSubscribers(ctx context.Context, n *Node) (have int, err error) {
	if err := s.env.DB.QueryRow(ctx, sqlSubscribers, n.id, s.now()).Scan(&have); err != nil {
		return 0, fmt.Errorf("subscriptions to node %s of %s: %w", n.Node, n.Service, err)
	}
	return have, nil
}
