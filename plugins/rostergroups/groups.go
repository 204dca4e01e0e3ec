package rostergroups

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/plugins/roster"
	"parley/router/sessions"
	"parley/storage"
)

// topic is what nodes tell each other under: "", groups have changed; or an account, which
// has come or gone.
const topic = "rostergroups"

// Groups are the groups as this node knows them. It is the plugin's contract, and what
// rosters are made of; safe for concurrent use.
//
// A change is first in the tables, then in the directory of the node that makes it, then
// in everybody's; then those are told whom it concerns and who are there, wherever that
// is.
type Groups struct {
	env    plugins.Env
	store  store
	part   atomic.Pointer[part] // nil while no processor runs here
	doubts chan struct{}        // the directory may not be what it should

	mu  sync.Mutex // held while the tables change or are read, never while nodes or clients are told
	dir atomic.Pointer[directory]
	gen atomic.Uint64
}

var _ roster.Shared = (*Groups)(nil)

func newGroups(env plugins.Env) *Groups {
	g := &Groups{env: env, store: store{env}, doubts: make(chan struct{}, 1)}
	g.put(&directory{version: -1})
	env.OnForget(topic, g.told)
	env.OnAnswer(callOrder, g.answerOrder)
	return g
}

func (g *Groups) now() *directory { return g.dir.Load() }

// put sets the directory.
func (g *Groups) put(d *directory) {
	g.dir.Store(d)
	g.gen.Add(1) // after it: who has seen the number before looks again
}

// Generation implements roster.Shared.
func (g *Groups) Generation() uint64 { return g.gen.Load() }

// Of implements roster.Shared.
func (g *Groups) Of(owner jid.JID) []roster.Grant {
	d := g.now()
	if len(d.groups) == 0 {
		return nil
	}
	return d.grants(owner)
}

// doubt lets the directory be read again soon.
func (g *Groups) doubt() {
	select {
	case g.doubts <- struct{}{}:
	default:
	}
}

// stale reports whether the tables have changed without this node having been told.
func (g *Groups) stale(ctx context.Context) (bool, error) {
	v, err := g.store.version(ctx)
	return err == nil && v != g.now().version, err
}

// reload reads the tables.
func (g *Groups) reload(ctx context.Context, p *part) (before, after *directory, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.read(ctx, p)
}

// read is reload; mu is held.
func (g *Groups) read(ctx context.Context, p *part) (before, after *directory, err error) {
	before = g.now()
	if after, err = g.store.load(ctx); err != nil {
		return before, nil, err
	}
	for _, one := range after.groups {
		if _, here := after.people[one.domain]; here || !one.everyone && !one.everybody {
			continue
		}
		if after.people[one.domain], err = p.accounts(ctx, one.domain); err != nil {
			return before, nil, err
		}
	}
	if after.equal(before) { // rosters need not be looked at again
		return before, before, nil
	}
	g.put(after)
	return before, after, nil
}

// accounts are those of a domain that its groups of everybody are about.
func (p *part) accounts(ctx context.Context, domain string) ([]jid.JID, error) {
	var out []jid.JID
	after := jid.JID{}
	for len(out) < p.cfg.Members {
		page, err := p.people.List(ctx, domain, after, p.cfg.Members-len(out))
		if err != nil {
			return nil, err
		}
		for i := range page {
			out = append(out, page[i].JID)
		}
		if len(page) == 0 {
			break
		}
		after = page[len(page)-1].JID
	}
	slices.SortFunc(out, byAddress)
	return out, nil
}

// tellLimit is how long another node waits for its notice to be taken.
const tellLimit = 5 * time.Second

// tell lets every other node know before clients do. They read the database for it, which
// takes its time, so what else they are told does not wait behind it.
func (g *Groups) tell(ctx context.Context, key string) {
	if g.env.Notices == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, tellLimit)
	defer cancel()
	if err := g.env.Notices.Ask(ctx, "", topic, key); err != nil {
		g.env.Log.Warn("a node finds out later what has become of roster groups", "err", err)
	}
}

// told is what another node has to say.
func (g *Groups) told(key string) {
	p := g.part.Load()
	if p == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), tellLimit)
	defer cancel()
	var err error
	if j, failed := jid.Parse(key); failed == nil {
		_, _, err = g.resident(ctx, p, j)
	} else {
		_, _, err = g.reload(ctx, p)
	}
	if err != nil {
		g.env.Log.Warn("roster groups not read; trying again", "err", err)
		g.doubt()
	}
}

// write changes the tables and reads them. about says whom the change is about, before
// and after it.
func (g *Groups) write(ctx context.Context, p *part, f func(storage.Tx) error, about func(*directory) []jid.JID) error {
	before, after, err := g.writeAndRead(ctx, p, f)
	if err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx) // there is no way back
	g.tell(ctx, "")
	g.follow(ctx, p, before, after, append(about(before), about(after)...))
	return nil
}

func (g *Groups) writeAndRead(ctx context.Context, p *part, f func(storage.Tx) error) (before, after *directory, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err := g.store.change(ctx, f); err != nil {
		g.doubt() // it may be committed
		return nil, nil, err
	}
	if before, after, err = g.read(context.WithoutCancel(ctx), p); err != nil {
		g.doubt()
	}
	return before, after, err
}

// follow tells those who are there what the groups give them otherwise than before. about
// are the accounts whose membership has changed, or whom others see otherwise; nil: they
// may be any. Who cannot be told sees it when its client asks for the roster again.
func (g *Groups) follow(ctx context.Context, p *part, before, after *directory, about []jid.JID) {
	reg := p.reg.Load()
	if reg == nil {
		return
	}
	whoever := about == nil
	slices.SortFunc(about, byAddress)
	about = slices.Compact(about)
	concerned := map[jid.JID]bool{}
	for _, j := range about {
		concerned[j] = true
	}
	online := map[jid.JID]bool{}
	g.env.Sessions.Each(func(e *sessions.Entry) bool {
		if e.Kind == sessions.Client {
			online[e.JID.Bare()] = true
		}
		return true
	})
	var all []roster.Shift
	for owner := range online {
		var was []roster.Grant
		if whoever || concerned[owner] || len(concerned) > few {
			was = lost(before.grants(owner), after.grants(owner))
		} else {
			for _, contact := range about {
				if old := before.grant(owner, contact); !same(old, after.grant(owner, contact)) {
					was = append(was, old)
				}
			}
		}
		if len(was) > 0 {
			all = append(all, roster.Shift{Owner: owner, Before: was})
		}
	}
	if err := p.rosters.Reshare(ctx, reg, all); err != nil {
		g.env.Log.Error("not everybody who is there was told of changes in roster groups", "err", err)
	}
}

// few is how many accounts a change is about that are looked at one by one.
const few = 20

// lost are the grants of before that are not the same after, both in the order of
// addresses, those that there were not included.
func lost(before, after []roster.Grant) (out []roster.Grant) {
	for len(before) > 0 || len(after) > 0 {
		switch {
		case len(after) == 0 || len(before) > 0 && byAddress(before[0].Contact, after[0].Contact) < 0:
			out, before = append(out, before[0]), before[1:]
		case len(before) == 0 || byAddress(before[0].Contact, after[0].Contact) > 0:
			out, after = append(out, roster.Grant{Contact: after[0].Contact}), after[1:]
		default:
			if !same(before[0], after[0]) {
				out = append(out, before[0])
			}
			before, after = before[1:], after[1:]
		}
	}
	return out
}

// resident takes into the directory whether an account is there, if a group is about
// everybody of its domain.
func (g *Groups) resident(ctx context.Context, p *part, j jid.JID) (before, after *directory, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	d := g.now()
	all, watched := d.people[j.Domain()]
	if !watched {
		return d, d, nil
	}
	exists, err := p.people.Exists(ctx, j)
	i, known := slices.BinarySearchFunc(all, j, byAddress)
	switch {
	case err != nil || exists == known:
		return d, d, err
	case !exists && len(all) >= p.cfg.Members: // somebody else comes in
		return g.read(ctx, p)
	}
	next := *d
	next.people = map[string][]jid.JID{}
	for domain, list := range d.people {
		next.people[domain] = list
	}
	list := slices.Clone(all)
	if exists {
		list = slices.Insert(list, i, j)
		list = list[:min(len(list), p.cfg.Members)]
	} else {
		list = slices.Delete(list, i, i+1)
	}
	next.people[j.Domain()] = list
	g.put(&next)
	return d, &next, nil
}

// came lets a new account into the groups that are about everybody, and one that is no
// more out of them.
func (g *Groups) came(ctx context.Context, p *part, j jid.JID) error {
	before, after, err := g.resident(ctx, p, j)
	if err != nil {
		g.doubt()
		return err
	}
	if before == after {
		return nil
	}
	g.tell(ctx, j.String())
	g.follow(ctx, p, before, after, append(moved(before.people[j.Domain()], after.people[j.Domain()]), j))
	return nil
}

// removed takes an account that is no more out of all groups.
func (g *Groups) removed(ctx context.Context, p *part, j jid.JID) error {
	member, err := g.store.isMember(ctx, j)
	if err != nil {
		return err
	}
	if !member {
		return g.came(ctx, p, j)
	}
	return g.write(ctx, p, func(tx storage.Tx) error {
		_, err := tx.Exec(ctx, sqlOut, j.String())
		return err
	}, func(d *directory) []jid.JID { return append(slices.Clone(d.people[j.Domain()]), j) })
}

// moved are those who are in one of the lists alone, both in the order of addresses.
func moved(a, b []jid.JID) (out []jid.JID) {
	for _, pair := range [][2][]jid.JID{{a, b}, {b, a}} {
		for _, j := range pair[0] {
			if _, both := slices.BinarySearchFunc(pair[1], j, byAddress); !both {
				out = append(out, j)
			}
		}
	}
	return out
}
