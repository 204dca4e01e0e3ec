package roster

import (
	"context"
	"strconv"
	"strings"

	"parley/parser/stanza"
	"parley/processor"
	"parley/router/channel"
	"parley/router/sessions"
)

// get answers a client that asks for its roster (RFC 6121 §2.1.3). Interest,
// answer and interim pushes are one step under the account's lock: a change
// before it is in the answer, one after it is pushed behind it.
func (c *component) get(ctx context.Context, f *processor.Flow) (processor.Verdict, error) {
	if f.Kind != stanza.IQ || f.Type != stanza.TypeGet || !f.Has(stanza.NSRoster, "query") {
		return processor.Continue, nil
	}
	if f.Session.Conn == 0 { // somebody speaks for the account: nothing is pushed to it
		return processor.Continue, nil
	}
	owner := f.Session.JID.Bare()
	if !f.To.IsZero() && f.To != owner {
		return processor.Continue, nil
	}
	query := f.Payload()
	defer c.rosters.lock(owner)()
	s, err := c.rosters.current(ctx, owner)
	if err != nil {
		return processor.Stop, err
	}
	changes, known, err := c.rosters.changes(ctx, s, query)
	if err != nil {
		return processor.Stop, err
	}
	now, bound := c.house.Change(f.Session.Ref, func(st *sessions.State) { st.Interested = true })
	if !bound {
		return processor.Stop, nil
	}
	if !known {
		c.house.Route(ctx, For(now, f.Reply(s.element())))
		return processor.Stop, nil
	}
	out := make([]*channel.Envelope, 0, 1+len(changes))
	out = append(out, For(now, f.Reply(nil))) // §2.6.3: the result comes first
	for _, it := range changes {
		out = append(out, pushTo(now, s.seen(it), s.at(it.ver)))
	}
	c.house.Route(ctx, out...)
	return processor.Stop, nil
}

// changes returns what a client lacks that names its version; false: it names
// none, or one that nothing is known about any more (RFC 6121 §2.6.3): other contacts
// were shared then, or it knows some of those that are shared now.
func (r *Rosters) changes(ctx context.Context, s *Snapshot, query *stanza.Element) (items []Item, known bool, err error) {
	own, mark, _ := strings.Cut(query.Get("ver"), "-")
	ver, err := strconv.ParseInt(own, 10, 64)
	if err != nil || mark != s.mark || ver < s.floor || ver > s.ver {
		return nil, false, nil
	}
	if ver == s.ver {
		return nil, true, nil
	}
	items, err = r.store.since(ctx, s.owner, ver)
	return items, err == nil, err
}

// element is the payload of a roster result (RFC 6121 §2.1.4).
func (s *Snapshot) element() *stanza.Element {
	query := stanza.El(stanza.NSRoster, "query").With("ver", s.Version())
	for i := range s.items {
		query.Add(s.items[i].Element())
	}
	return query
}
