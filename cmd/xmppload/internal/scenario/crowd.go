//go:build linux

package scenario

import (
	"context"
	"fmt"

	"parley/cmd/xmppload/internal/count"
	"parley/cmd/xmppload/internal/proc"
)

// Crowd is sessions that stay while their number grows: what the same work
// costs among few and among many.
type Crowd struct {
	common Common
	server *Server
	fleet  *fleet
	names  func(int) string
}

// Crowd has no sessions yet. name is the account of the n-th one.
func (s *Server) Crowd(c Common, name func(int) string) (*Crowd, error) {
	f, err := newFleet()
	if err != nil {
		return nil, err
	}
	return &Crowd{common: c, server: s, fleet: f, names: name}, nil
}

// Grow logs in until there are n sessions.
func (c *Crowd) Grow(ctx context.Context, n int) error {
	if err := c.server.grow(ctx, c.common, c.fleet, 0, n, true, c.names); err != nil {
		return err
	}
	return c.fleet.quiet(c.common.Settle)
}

// Chat chats among the first sessions; the others listen.
func (c *Crowd) Chat(o Chat) (*Result, error) {
	o.Common = c.common
	defer func() {
		for _, x := range c.fleet.all {
			x.On = nil
		}
	}()
	return o.on(c.server, c.fleet)
}

// RSS is the server's memory, after it gave back what it does not use.
func (c *Crowd) RSS(ctx context.Context) (int64, error) {
	if err := c.server.collect(ctx); err != nil {
		return 0, err
	}
	use, err := proc.NewGroup(c.server.PIDs...).Read()
	return use.RSS, err
}

// Page is one query of an archive: what stands in <query/>, asked by a session.
type Page struct {
	Session int
	Query   string
}

// Pages fetches pages one after the other.
func (c *Crowd) Pages(pages []Page) (*Result, error) {
	var times count.Times
	r := &Result{}
	m, err := c.server.meter()
	if err != nil {
		return nil, err
	}
	items := 0
	for _, p := range pages {
		n, took, err := c.fleet.page(c.fleet.all[p.Session], p.Query, c.common.Patience)
		if err != nil {
			return nil, err
		}
		items += n
		times.Add(took)
	}
	if err := m.stop(r, len(pages), 1000, "pages"); err != nil {
		return nil, err
	}
	r.pages(&times, items)
	return r, nil
}

// pages adds how long pages took and what was in them.
func (r *Result) pages(times *count.Times, items int) {
	r.add("page p50", "ms", times.Quantile(0.5).Seconds()*1000)
	r.add("page p95", "ms", times.Quantile(0.95).Seconds()*1000)
	r.add("rows per page", "", float64(items)/float64(times.Len()))
}

// Value is a metric by its name.
func (r *Result) Value(name string) (float64, error) {
	for _, m := range r.Metrics {
		if m.Name == name {
			return m.Value, nil
		}
	}
	return 0, fmt.Errorf("no figure %q", name)
}

// Close ends every session.
func (c *Crowd) Close() { c.fleet.close() }
