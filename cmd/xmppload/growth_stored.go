//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"parley/cmd/xmppload/internal/bulk"
	"parley/cmd/xmppload/internal/chart"
	"parley/cmd/xmppload/internal/count"
	"parley/cmd/xmppload/internal/proc"
	"parley/cmd/xmppload/internal/scenario"
	"parley/cmd/xmppload/internal/wire"
	"parley/cmd/xmppload/peers"
)

// archives: pages of one large archive, which has half of all rows, and of
// many others.
func (g *growth) archives(ctx context.Context) error {
	return g.onDatabases(ctx, func(driver, title string, db *peers.Postgres) error {
		t := topic{id: "archive-" + driver,
			text:  "Half of the rows are one owner's, 50 contacts in turn; the others have 100 rows each. Pages of 50, as the client sees them, median of 200. Text: a word that every message has, one that every 200th has, both together, and the first with a contact; the index has come to the end.",
			Chart: chart.Chart{Title: "Pages of an archive in " + title, X: "rows in the archive table", Y: "milliseconds per page"}}
		if err := g.archive(ctx, &t, driver, db); err != nil {
			return err
		}
		g.topics = append(g.topics, t)
		return nil
	})
}

func (g *growth) archive(ctx context.Context, t *topic, driver string, db *peers.Postgres) (err error) {
	child, err := g.child(ctx, "parley", driver, db, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, child.Stop()) }()
	from := 0
	for _, n := range g.sizes(10_000, 100_000, 1_000_000, 2_000_000, 5_000_000) {
		err := g.load(ctx, child, func(b *bulk.DB) error {
			if err := b.Accounts(ctx, domain, scenario.Password, bulk.Owner, 0, 1+bulk.Owners(n)); err != nil {
				return err
			}
			return b.Archive(ctx, domain, from, n)
		})
		if err != nil {
			return err
		}
		from = n
		g.say("%s: %d rows", t.id, n)
		if err := g.indexed(ctx, child); err != nil {
			return err
		}
		g.say("%s: %d rows are indexed", t.id, n)
		if err := g.pages(ctx, t, child, n); err != nil {
			return fmt.Errorf("%d rows: %w", n, err)
		}
	}
	return nil
}

// indexed waits until the server has indexed its archives: until then it does not
// look for what is in none of them (XEP-0431).
func (g *growth) indexed(ctx context.Context, child *peers.Child) error {
	look := func() error {
		crowd, err := g.server(child, wire.Plain, 0).Crowd(g.common, bulk.Owner)
		if err != nil {
			return err
		}
		defer crowd.Close()
		if err := crowd.Grow(ctx, 1); err != nil {
			return err
		}
		_, err = crowd.Pages([]scenario.Page{{Query: text("nobody said this") + scenario.LastPage}})
		return err
	}
	for {
		err := look()
		if err == nil || !strings.Contains(err.Error(), "resource-constraint") {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Second):
		}
	}
}

// pages measures each kind of page once the archive has n rows.
func (g *growth) pages(ctx context.Context, t *topic, child *peers.Child, n int) error {
	const many = 200
	others := min(bulk.Owners(n), many)
	crowd, err := g.server(child, wire.Plain, 0).Crowd(g.common, func(i int) string {
		if i == 0 {
			return bulk.Owner(0)
		}
		return bulk.Owner(1 + (i-1)*(bulk.Owners(n)/others))
	})
	if err != nil {
		return err
	}
	defer crowd.Close()
	if err := crowd.Grow(ctx, 1+others); err != nil {
		return err
	}
	chance := rand.New(rand.NewPCG(313, 59)) // the same pages every time
	for _, k := range []struct {
		name string
		page func(int) scenario.Page
	}{
		{"newest", func(int) scenario.Page { return scenario.Page{Query: scenario.LastPage} }},
		{"in the middle", func(int) scenario.Page {
			return scenario.Page{Query: form("start", bulk.When(n/4+chance.IntN(n/2)).Format(time.RFC3339Nano)) + firstPage}
		}},
		{"with a contact", func(i int) scenario.Page {
			return scenario.Page{Query: form("with", bulk.Contact(i)+"@"+domain) + scenario.LastPage}
		}},
		{"with somebody of long ago", func(int) scenario.Page {
			return scenario.Page{Query: form("with", bulk.Rare+"@"+domain) + scenario.LastPage}
		}},
		{"text, a frequent word", func(int) scenario.Page { return scenario.Page{Query: text(bulk.Frequent) + scenario.LastPage} }},
		{"text, a rare word", func(i int) scenario.Page { return scenario.Page{Query: text(bulk.Word(i)) + scenario.LastPage} }},
		{"text, both", func(i int) scenario.Page {
			return scenario.Page{Query: text(bulk.Frequent+" "+bulk.Word(i)) + scenario.LastPage}
		}},
		{"text, with a contact", func(i int) scenario.Page {
			return scenario.Page{Query: form(textField, bulk.Frequent, "with", bulk.Contact(i)+"@"+domain) + scenario.LastPage}
		}},
		{"newest, 200 others", func(i int) scenario.Page {
			return scenario.Page{Session: 1 + i%others, Query: scenario.LastPage}
		}},
	} {
		pages := make([]scenario.Page, many)
		for i := range pages {
			pages[i] = k.page(i)
		}
		r, err := crowd.Pages(pages)
		if err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
		ms, err := r.Value("page p50")
		if err != nil {
			return err
		}
		rows, err := r.Value("rows per page")
		if err != nil {
			return err
		}
		if rows < bulk.RareRows {
			return fmt.Errorf("%s: %.1f rows per page: the archive is not what was written", k.name, rows)
		}
		g.point(t, k.name, n, ms, false)
	}
	return nil
}

const firstPage = "<set xmlns='http://jabber.org/protocol/rsm'><max>50</max></set>"

// form filters a query (XEP-0313 §4.1).
func form(namesAndValues ...string) string {
	x := "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'><value>urn:xmpp:mam:2</value></field>"
	for some := range slices.Chunk(namesAndValues, 2) {
		x += "<field var='" + some[0] + "'><value>" + some[1] + "</value></field>"
	}
	return x + "</x>"
}

// textField is that of XEP-0431.
const textField = "{urn:xmpp:fulltext:0}fulltext"

// text looks for what was said.
func text(words string) string { return form(textField, words) }

// starts: from the start of the process to the first answer on a stream.
func (g *growth) starts(ctx context.Context) error {
	wall := topic{id: "start", text: "From the start of the process to its first stream header, median of 9 starts.",
		Chart: chart.Chart{Title: "Time to start", X: "accounts", Y: "milliseconds"}}
	err := g.onDatabases(ctx, func(driver, title string, db *peers.Postgres) error {
		return g.start(ctx, &wall, driver, title, db)
	})
	g.topics = append(g.topics, wall)
	return err
}

func (g *growth) start(ctx context.Context, t *topic, driver, title string, db *peers.Postgres) (err error) {
	child, err := g.child(ctx, "parley", driver, db, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, child.Stop()) }()
	from := 0
	for _, n := range g.sizes(100, 10_000, 100_000) {
		err := g.load(ctx, child, func(b *bulk.DB) error {
			return b.Accounts(ctx, domain, scenario.Password, scenario.User, from, n)
		})
		if err != nil {
			return err
		}
		from = n
		var took, cpu []float64
		for range 9 {
			if err := errors.Join(child.Stop(), child.Again(ctx)); err != nil {
				return err
			}
			use, err := proc.NewGroup(child.PIDs[0]).Read()
			if err != nil {
				return err
			}
			took = append(took, child.Took.Seconds()*1000)
			cpu = append(cpu, use.CPU.Seconds()*1000)
		}
		g.point(t, title, n, count.Median(took), false)
		g.point(t, title+", the server's CPU", n, count.Median(cpu), true)
	}
	return nil
}
