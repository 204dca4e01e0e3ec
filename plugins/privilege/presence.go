package privilege

import (
	"context"
	"fmt"
	"hash/maphash"
	"sync"

	"github.com/maypok86/otter/v2"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins/presence"
	"parley/processor"
	"parley/router/channel"
	"parley/router/sessions"
	"parley/stream/component"
)

// sees reports whether a component hears when accounts come and go; who sees
// their contacts does (§7.4).
func sees(g *component.Privileges) bool {
	return g.Presence == component.ManagedEntity || g.Presence == component.Roster
}

func seesContacts(g *component.Privileges) bool { return g.Presence == component.Roster }

// watchers are the components that are here and see it.
func (p *part) watchers(pick func(*component.Privileges) bool) (out []jid.JID) {
	for _, domain := range p.components.Granted(func(g *component.Grants) bool { return pick(&g.Privileges) }) {
		if p.components.Here(domain) {
			out = append(out, jid.MustParse(domain))
		}
	}
	return out
}

// became is §7.1: initial presence and the end of it, nothing between.
func (p *part) became(ctx context.Context, t *presence.Transition) (processor.Verdict, error) {
	if t.Session.Kind != sessions.Client || !t.Arrived() && !t.Left() {
		return processor.Continue, nil
	}
	return processor.Continue, p.show(ctx, t.Session.JID, t.Stanza, p.watchers(sees), false)
}

// show sends presence to components, but not to those whom the account has
// blocked. asked lets it wait until they have room for it.
func (p *part) show(ctx context.Context, from jid.JID, st *stanza.Stanza, to []jid.JID, asked bool) error {
	if len(to) == 0 {
		return nil
	}
	a := &presence.Audience{From: from, To: to}
	if _, err := processor.Fire(ctx, p.reg, presence.Reaches, a); err != nil {
		return err
	}
	var out []*channel.Envelope
	for _, j := range a.To {
		e := directed(from, st, j)
		e.Solicited = asked
		out = append(out, e)
	}
	p.reg.Route(ctx, out...)
	return nil
}

// directed is presence on its way to a component.
func directed(from jid.JID, st *stanza.Stanza, to jid.JID) *channel.Envelope {
	own := *st
	own.From, own.To = from, to
	return &channel.Envelope{Kind: channel.Route, Raw: st.Raw, Stanza: &own, Edits: own.Stamp()}
}

// showAll shows a component who is here (§8 rule 1), as fast as it reads: there may be
// more than it has room for. What contacts elsewhere have said is not kept, so their
// next presence is the first that it gets.
func (p *part) showAll(ctx context.Context, to *sessions.Entry) {
	var here []*sessions.Entry
	p.env.Sessions.Each(func(e *sessions.Entry) bool {
		if e.Kind == sessions.Client && e.Available {
			here = append(here, e)
		}
		return true
	})
	for _, e := range here {
		if now, there := p.env.Sessions.Find(to.JID); ctx.Err() != nil || !there || now.Ref != to.Ref {
			return
		}
		now, there := p.env.Sessions.Find(e.JID)
		if !there || !now.Available { // it has left meanwhile
			continue
		}
		st, err := stanza.Parse(now.Presence, stanza.NSClient, nil)
		if err == nil {
			err = p.show(ctx, now.JID, st, []jid.JID{to.JID}, true)
		}
		if err != nil {
			p.env.Log.Error("presence not shown to a component", "jid", now.JID.String(), "component", to.JID.String(), "err", err)
		}
	}
}

// shown is §7.4: presence that an account gets from a contact elsewhere. What our
// own accounts show their contacts is in became already.
func (p *part) shown(ctx context.Context, f *processor.Flow) (processor.Verdict, error) {
	if f.Kind != stanza.Presence || f.Type != "" && f.Type != stanza.TypeUnavailable || !f.To.IsBare() || p.env.Local(f.From.Domain()) {
		return processor.Continue, nil
	}
	to := p.watchers(seesContacts)
	if len(to) == 0 {
		return processor.Continue, nil
	}
	state, err := p.rosters.Subscription(ctx, f.Account, f.From.Bare())
	if err != nil || !state.To() {
		return processor.Continue, err
	}
	says := p.seen.sum(f.Stanza)
	var out []*channel.Envelope
	for _, j := range to {
		if j.Domain() != f.From.Domain() && p.seen.fresh(j.Domain(), f.From, says) {
			own := *f.Stanza
			own.To = j
			edits := own.Stamp()
			st, err := stanza.Parse(edits.Render(nil, f.Raw), stanza.NSClient, nil)
			if err != nil {
				return processor.Continue, fmt.Errorf("presence for a component: %w", err)
			}
			out = append(out, route(st))
		}
	}
	p.reg.Route(ctx, out...)
	return processor.Continue, nil
}

// maxSeen is how many presences elsewhere are remembered; what was forgotten is
// told a second time.
const maxSeen = 100_000

// seen remembers what components were told of contacts elsewhere, so that several
// accounts' presence of one contact is told once (§8 rule 2). It is this node's:
// another node may tell the same once more.
type seen struct {
	said *otter.Cache[seenKey, uint64]
	seed maphash.Seed
	mu   sync.Mutex
	gen  map[string]int // connections of each component
}

type seenKey struct {
	component string
	gen       int
	from      jid.JID
}

func newSeen() (*seen, error) {
	c, err := otter.New(&otter.Options[seenKey, uint64]{MaximumSize: maxSeen})
	if err != nil {
		return nil, fmt.Errorf("presence cache: %w", err)
	}
	return &seen{said: c, seed: maphash.MakeSeed(), gen: map[string]int{}}, nil
}

// sum stands for what presence says, whomever it is for.
func (s *seen) sum(st *stanza.Stanza) uint64 {
	var h maphash.Hash
	h.SetSeed(s.seed)
	_, _ = h.WriteString(st.Type)
	for _, ch := range st.Children {
		_, _ = h.Write(st.ChildBytes(ch))
	}
	return h.Sum64()
}

// forget is for a component that has connected: it knows nothing.
func (s *seen) forget(component string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gen[component]++
}

func (s *seen) fresh(component string, from jid.JID, says uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := seenKey{component, s.gen[component], from}
	last, ok := s.said.GetIfPresent(key)
	s.said.Set(key, says)
	return !ok || last != says
}
