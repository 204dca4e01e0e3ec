package pubsub

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/storage"
	"parley/storage/atrest"
	"parley/storage/storagetest"
)

// hand is a clock that moves when the test says so.
type hand struct {
	plugins.SystemClock
	mu  sync.Mutex
	now time.Time
}

func (h *hand) Now() time.Time { h.mu.Lock(); defer h.mu.Unlock(); return h.now }

func (h *hand) move(d time.Duration) { h.mu.Lock(); defer h.mu.Unlock(); h.now = h.now.Add(d) }

// each runs f with a service of its own on each database.
func each(t *testing.T, f func(t *testing.T, c *component, clock *hand)) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		if err := db.Migrate(t.Context(), Name, migrations); err != nil {
			t.Fatal(err)
		}
		clock := &hand{now: time.Unix(1_700_000_000, 0)}
		f(t, made(t, plugins.Env{DB: db, Clock: clock, Log: slog.New(slog.DiscardHandler), Domains: plugins.NewDomains("localhost")}), clock)
	})
}

func made(t *testing.T, env plugins.Env) *component {
	t.Helper()
	p, err := newPubSub(env)
	if err != nil {
		t.Fatal(err)
	}
	return &component{PubSub: p, cfg: *defaults()}
}

var (
	romeo, juliet = jid.MustParse("romeo@localhost"), jid.MustParse("juliet@localhost")
	common        = jid.MustParse("pubsub.localhost")
)

// put publishes without asking anybody.
func put(t *testing.T, c *component, at Address, by jid.JID, set func(*Settings), ids ...string) (*Node, []string, error) {
	t.Helper()
	n, err := c.dir.node(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	w := &write{node: n, fresh: n == nil, limits: &c.cfg.Limits, rows: &Rows{}}
	if w.fresh {
		s := defaultSettings(at.PEP())
		s.MaxItems = Max
		if set != nil {
			set(&s)
		}
		w.node = c.store.fresh(at, by, s)
	}
	for _, id := range ids {
		it := &Item{ID: id, Publisher: by, Payload: stanza.El("urn:example", "a").AddText(id)}
		it.size = len(it.bytes())
		w.items = append(w.items, it)
	}
	gone, err := c.store.publish(t.Context(), w)
	w.leave()
	if w.fresh {
		c.dir.changed(t.Context(), at)
	}
	return w.node, gone, err
}

func idsOf(t *testing.T, c *component, n *Node, q Query) (out []string) {
	t.Helper()
	page, err := c.store.items(t.Context(), n, q)
	if err != nil {
		t.Fatal(err)
	}
	for _, it := range page.Items {
		out = append(out, it.ID)
	}
	return out
}

// counted fails when a node's counters are not what its items are.
func counted(t *testing.T, c *component) {
	t.Helper()
	rows, err := c.env.DB.Query(t.Context(), `SELECT n.name, n.items, n.bytes, n.newest, count(i.seq), CAST(coalesce(sum(i.size), 0) AS bigint), coalesce(max(i.seq), 0)
		FROM pubsub_node n LEFT JOIN pubsub_item i ON i.node = n.id GROUP BY n.id, n.name, n.items, n.bytes, n.newest`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		var items, bytes, newest, have, size, last int64
		if err := rows.Scan(&name, &items, &bytes, &newest, &have, &size, &last); err != nil {
			t.Fatal(err)
		}
		if items != have || bytes != size || newest != last {
			t.Errorf("%s says %d items, %d bytes, newest %d; it has %d, %d, %d", name, items, bytes, newest, have, size, last)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
}

// Whatever is done to nodes, in whatever order, limits are counted rightly: what an
// account may keep does not grow, and what is removed is free again.
func TestReliability18Counters(t *testing.T) {
	each(t, func(t *testing.T, c *component, clock *hand) {
		c.cfg.Total = 3000
		r := rand.New(rand.NewPCG(1, 2))
		refused := 0
		for i := range 300 {
			at := Address{romeo, fmt.Sprint("n", r.IntN(4))}
			n, err := c.dir.node(t.Context(), at)
			if err != nil {
				t.Fatal(err)
			}
			id := fmt.Sprint("i", r.IntN(12))
			switch k := r.IntN(10); {
			case k < 6 || n == nil:
				_, _, err = put(t, c, at, romeo, func(s *Settings) { s.MaxItems, s.ItemExpire = 8, 60 }, id, fmt.Sprint("x", i))
			case k < 8:
				_, err = c.store.retract(t.Context(), &write{node: n, rows: &Rows{}, limits: &c.cfg.Limits}, []string{id}, true)
			case k == 8 && i%3 == 0:
				err = c.store.purge(t.Context(), &write{node: n, rows: &Rows{}})
			default:
				clock.move(20 * time.Second)
				_, _, err = c.store.expire(t.Context(), 5)
			}
			var se *stanza.Error
			if errors.As(err, &se) && se.Condition == stanza.PolicyViolation {
				refused++
			} else if err != nil {
				t.Fatal(err)
			}
		}
		counted(t, c)
		t.Logf("%d were too many", refused)
	})
}

// Nodes, subscriptions and affiliations have bounds, and the error names the limit.
func TestReliability18Limits(t *testing.T) {
	each(t, func(t *testing.T, c *component, _ *hand) {
		c.cfg.Nodes, c.cfg.Subscribers, c.cfg.Subscriptions, c.cfg.Affiliations, c.cfg.Total = 2, 2, 1, 3, 100
		limit := func(err error, want string) {
			t.Helper()
			var se *stanza.Error
			if !errors.As(err, &se) || se.Condition != stanza.PolicyViolation || !strings.Contains(se.Text, want) {
				t.Errorf("%v, want %s", err, want)
			}
		}
		n, _, err := put(t, c, Address{romeo, "a"}, romeo, nil, "1")
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err = put(t, c, Address{common, "a"}, romeo, nil, "1"); err != nil {
			t.Fatal(err)
		}
		_, _, err = put(t, c, Address{romeo, "b"}, romeo, nil, "1")
		limit(err, "max_nodes")
		if _, _, err := put(t, c, Address{common, "b"}, juliet, nil, "1"); err != nil { // another account
			t.Error(err)
		}
		_, _, err = put(t, c, Address{romeo, "a"}, romeo, nil, "2", "3")
		limit(err, "max_total_size")
		sub := func(n *Node, who string) error {
			return c.store.setSubscription(t.Context(), n, Subscription{JID: jid.MustParse(who), State: Subscribed, Options: defaultOptions(), asked: true}, &c.cfg.Limits)
		}
		for _, who := range []string{"a@localhost", "b@localhost", "a@localhost"} { // the last one is there already
			if err := sub(n, who); err != nil {
				t.Error(err)
			}
		}
		limit(sub(n, "c@localhost"), "max_subscribers")
		limit(sub(n, "a@localhost/x"), "max_subscribers")
		c.cfg.Subscribers = 10
		limit(sub(n, "a@localhost/x"), "max_subscriptions")
		// What an owner gives somebody costs them nothing.
		if err := c.store.setSubscription(t.Context(), n, Subscription{JID: jid.MustParse("a@localhost/x"), State: Subscribed}, &c.cfg.Limits); err != nil {
			t.Error(err)
		}
		if err := sub(n, "a@localhost"); err != nil {
			t.Error(err)
		}
		limit(c.store.affiliate(t.Context(), n, map[jid.JID]Affiliation{juliet: Member, jid.MustParse("b@localhost"): Member, jid.MustParse("c@localhost"): Member}, &c.cfg.Limits), "max_affiliations")
	})
}

// Two nodes of a cluster publish to one node: everything is there, each item has
// a place of its own, and nothing is counted twice.
func TestPublishersAtOnce(t *testing.T) {
	each(t, func(t *testing.T, c *component, _ *hand) {
		other := made(t, c.env)
		at := Address{common, "n"}
		if _, _, err := put(t, c, at, romeo, nil, "first"); err != nil {
			t.Fatal(err)
		}
		const each = 10
		var wg sync.WaitGroup
		for w := range 8 { // of each node more than Postgres would let try again
			who := []*component{c, other}[w%2]
			wg.Go(func() {
				for i := range each {
					if _, _, err := put(t, who, at, romeo, nil, fmt.Sprintf("%d-%d", w, i), "same"); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		n, _ := c.dir.node(t.Context(), at)
		if got := idsOf(t, c, n, Query{}); len(got) != 2+8*each || got[0] != "first" || got[len(got)-1] != "same" {
			t.Errorf("%d items: %v", len(got), got)
		}
		counted(t, c)
	})
}

// Who makes a node that somebody else has just made hears of it.
func TestCreatedAtOnce(t *testing.T) {
	each(t, func(t *testing.T, c *component, _ *hand) {
		var wg sync.WaitGroup
		var mu sync.Mutex
		outcomes := map[string]int{}
		for range 4 {
			wg.Go(func() {
				n := c.store.fresh(Address{common, "n"}, romeo, defaultSettings(false))
				_, err := c.store.publish(t.Context(), &write{node: n, fresh: true, limits: &c.cfg.Limits, rows: &Rows{}})
				mu.Lock()
				defer mu.Unlock()
				outcomes[fmt.Sprint(err == nil, raced(err, true))]++
			})
		}
		wg.Wait()
		if outcomes["true false"] != 1 || outcomes["false true"] != 3 {
			t.Error(outcomes)
		}
	})
}

// An item that has expired is not there, whether it has been removed or not
// (XEP-0060 §16.4.4), and neither is a subscription.
func TestExpiry(t *testing.T) {
	each(t, func(t *testing.T, c *component, clock *hand) {
		at := Address{common, "n"}
		n, _, err := put(t, c, at, romeo, func(s *Settings) { s.ItemExpire = 60 }, "a")
		if err != nil {
			t.Fatal(err)
		}
		clock.move(30 * time.Second)
		if _, _, err := put(t, c, at, romeo, nil, "b"); err != nil {
			t.Fatal(err)
		}
		o := defaultOptions()
		o.Expire = clock.Now().Add(time.Minute)
		if err := c.store.setSubscription(t.Context(), n, Subscription{JID: juliet, State: Subscribed, Options: o}, &c.cfg.Limits); err != nil {
			t.Fatal(err)
		}
		check := func(items, subs int) {
			t.Helper()
			page, err := c.store.items(t.Context(), n, Query{Limit: 10})
			list, err2 := c.store.subscriptions(t.Context(), n)
			if err != nil || err2 != nil || len(page.Items) != items || page.Count != items || len(list) != subs {
				t.Errorf("%d items of %d, %d subscriptions, want %d, %d (%v, %v)", len(page.Items), page.Count, len(list), items, subs, err, err2)
			}
		}
		check(2, 1)
		clock.move(30 * time.Second)
		check(1, 1)
		for range 2 {
			clock.move(31 * time.Second)
			check(0, 0)
			if err := c.sweepOnce(t.Context(), func(context.Context, int64, []string) error { return nil }); err != nil {
				t.Fatal(err)
			}
		}
		counted(t, c)
		var left int
		if err := c.env.DB.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM pubsub_item) + (SELECT count(*) FROM pubsub_subscription)`).Scan(&left); err != nil || left != 0 {
			t.Errorf("%d rows are left, %v", left, err)
		}
	})
}

// An account that is removed leaves nothing behind: but nodes that others own,
// too, are theirs now.
func TestRemovedAccount(t *testing.T) {
	each(t, func(t *testing.T, c *component, _ *hand) {
		ctx := t.Context()
		for _, at := range []Address{{romeo, "a"}, {common, "alone"}, {common, "shared"}} {
			if _, _, err := put(t, c, at, romeo, nil, "1"); err != nil {
				t.Fatal(err)
			}
		}
		foreign, _, err := put(t, c, Address{juliet, "a"}, juliet, nil, "1")
		if err != nil {
			t.Fatal(err)
		}
		shared, _ := c.dir.node(ctx, Address{common, "shared"})
		if err := c.store.affiliate(ctx, shared, map[jid.JID]Affiliation{juliet: Owner}, &c.cfg.Limits); err != nil {
			t.Fatal(err)
		}
		if err := c.store.affiliate(ctx, foreign, map[jid.JID]Affiliation{romeo: Member}, &c.cfg.Limits); err != nil {
			t.Fatal(err)
		}
		if err := c.store.setSubscription(ctx, foreign, Subscription{JID: romeo, State: Subscribed}, &c.cfg.Limits); err != nil {
			t.Fatal(err)
		}
		moved, _ := c.dir.node(ctx, Address{common, "alone"})
		if _, err := c.store.remove(ctx, moved, "xmpp:elsewhere", &c.cfg.Limits); err != nil {
			t.Fatal(err)
		}
		if _, err := c.removed(ctx, romeo); err != nil {
			t.Fatal(err)
		}
		for _, table := range []string{"pubsub_node WHERE service = $1 OR account = $1", "pubsub_affiliation WHERE jid = $1", "pubsub_subscription WHERE bare = $1", "pubsub_moved WHERE account = $1"} {
			var left int
			if err := c.env.DB.QueryRow(ctx, `SELECT count(*) FROM `+table, romeo.String()).Scan(&left); err != nil || left != 0 {
				t.Errorf("%d rows are left of %s, %v", left, table, err)
			}
		}
		got, err := c.dir.node(ctx, Address{common, "shared"})
		if err != nil || got == nil || got.Account != juliet || got.Affiliation(romeo) != None {
			t.Errorf("%+v, %v", got, err)
		}
		var items int
		if err := c.env.DB.QueryRow(ctx, `SELECT count(*) FROM pubsub_item`).Scan(&items); err != nil || items != 2 {
			t.Errorf("%d items are left, %v", items, err)
		}
	})
}

// Of nodes that have gone elsewhere so many are remembered as there may be nodes.
func TestReliability18Moved(t *testing.T) {
	each(t, func(t *testing.T, c *component, clock *hand) {
		c.cfg.Nodes = 3
		for i := range 6 {
			at := Address{common, fmt.Sprint("n", i)}
			n, _, err := put(t, c, at, romeo, nil, "1")
			if err != nil {
				t.Fatal(err)
			}
			clock.move(time.Second)
			if _, err := c.store.remove(t.Context(), n, "xmpp:elsewhere", &c.cfg.Limits); err != nil {
				t.Fatal(err)
			}
			c.dir.changed(t.Context(), at)
		}
		for i, want := range []string{"", "", "", "xmpp:elsewhere", "xmpp:elsewhere", "xmpp:elsewhere"} {
			if uri, err := c.store.moved(t.Context(), Address{common, fmt.Sprint("n", i)}); err != nil || uri != want {
				t.Errorf("n%d is at %q, want %q (%v)", i, uri, want, err)
			}
		}
	})
}

// A node counts towards the limits of somebody who owns it.
func TestChargedOwner(t *testing.T) {
	each(t, func(t *testing.T, c *component, _ *hand) {
		n, _, err := put(t, c, Address{common, "n"}, romeo, nil, "1")
		if err != nil {
			t.Fatal(err)
		}
		if err := c.store.affiliate(t.Context(), n, map[jid.JID]Affiliation{romeo: None, juliet: Owner}, &c.cfg.Limits); err != nil {
			t.Fatal(err)
		}
		c.dir.changed(t.Context(), n.Address)
		if got, err := c.dir.node(t.Context(), n.Address); err != nil || got.Account != juliet {
			t.Errorf("%+v, %v", got, err)
		}
		if err := c.store.affiliate(t.Context(), n, map[jid.JID]Affiliation{juliet: Member}, &c.cfg.Limits); !errors.Is(err, errLastOwner) {
			t.Errorf("the last owner has gone: %v", err)
		}
	})
}

// Payloads are not in the database as they were published, when it is encrypted.
func TestSealedPayload(t *testing.T) {
	each(t, func(t *testing.T, c *component, _ *hand) {
		file := filepath.Join(t.TempDir(), "keys")
		if err := os.WriteFile(file, []byte("1 "+base64.StdEncoding.EncodeToString(make([]byte, 32))+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		ring, err := atrest.Load(file)
		if err != nil {
			t.Fatal(err)
		}
		v := new(atrest.Vault)
		v.Use(ring, true)
		env := c.env
		env.AtRest = v
		c = made(t, env)
		n, _, err := put(t, c, Address{romeo, "n"}, romeo, nil, "secret")
		if err != nil {
			t.Fatal(err)
		}
		var raw []byte
		if err := c.env.DB.QueryRow(t.Context(), `SELECT payload FROM pubsub_item`).Scan(&raw); err != nil || strings.Contains(string(raw), "secret") {
			t.Errorf("%q, %v", raw, err)
		}
		page, err := c.store.items(t.Context(), n, Query{})
		if err != nil || len(page.Items) != 1 || page.Items[0].Payload.Text() != "secret" {
			t.Errorf("%+v, %v", page, err)
		}
		last, err := c.store.newest(t.Context(), romeo)
		if err != nil || last[n.id] == nil || last[n.id].Payload.Text() != "secret" {
			t.Errorf("%+v, %v", last, err)
		}
	})
}

// A page ends where the answer would get too large; one item always fits.
func TestPageSize(t *testing.T) {
	each(t, func(t *testing.T, c *component, _ *hand) {
		n, _, err := put(t, c, Address{romeo, "n"}, romeo, nil, "a", "b", "c")
		if err != nil {
			t.Fatal(err)
		}
		one := len((&Item{Payload: stanza.El("urn:example", "a").AddText("a")}).bytes())
		for limit, want := range map[int]int{1: 1, one: 1, 2*one + 1: 2, 100 * one: 3} {
			for _, back := range []bool{false, true} {
				page, err := c.store.page(context.Background(), n, Query{Limit: 10, Backward: back}, limit)
				if err != nil || len(page.Items) != want || page.Count != 3 {
					t.Fatalf("%d bytes: %+v, %v", limit, page, err)
				}
				if first := page.Items[0].ID; !back && first != "a" || page.Index != map[bool]int{false: 0, true: 3 - want}[back] {
					t.Errorf("%d bytes, back %v: from %s at %d", limit, back, first, page.Index)
				}
			}
			named, err := c.store.page(context.Background(), n, Query{IDs: []string{"a", "a", "b", "a", "c"}}, limit)
			if err != nil || len(named.Items) != want {
				t.Errorf("%d bytes, by ids: %d items, %v", limit, len(named.Items), err)
			}
		}
	})
}
