package admincommands

import (
	"context"
	"strconv"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/plugins"
	"parley/plugins/commands"
	"parley/processor"
	"parley/storage/cache"
)

// Lists of entities of other servers.
const (
	black = "black" // whom accounts here have nothing to do with
	white = "white" // if there is anybody in it: whom alone they have to do with
)

// maxListed is how long a list may be.
const maxListed = 1000

// policy is what a domain's administrators have set.
type policy struct {
	lists map[string]map[jid.JID]bool // by black and white
	texts map[string]text             // by motd and welcome
}

// policies remember it, as every stanza to another server and every login needs it.
type policies struct {
	cache *cache.Cache[jid.JID, policy]
	store store
}

// topicPolicy is what nodes tell each other about policies under.
const topicPolicy = "admincommands"

func newPolicies(env plugins.Env, s store) (*policies, error) {
	o := plugins.CachedAccounts[policy](env, topicPolicy, limit)
	o.Size = 1024
	c, err := cache.New(o)
	return &policies{c, s}, err
}

func (p *policies) of(ctx context.Context, domain jid.JID) (policy, error) {
	return p.cache.Load(ctx, domain, p.store.policy)
}

// changed lets every node look again.
func (a *component) changed(ctx context.Context, domain jid.JID) {
	a.policies.cache.Drop(domain)
	a.env.Forget(ctx, topicPolicy, domain.String())
}

// listForm is XEP-0133 §4.11 and §4.12: the list as it is.
func (a *component) listForm(kind string) func(context.Context, *commands.Execution) (*form.Form, error) {
	return func(ctx context.Context, e *commands.Execution) (*form.Form, error) {
		list, err := a.store.listed(ctx, e.Domain, kind)
		if err != nil {
			return nil, err
		}
		return (&form.Form{}).Add(form.JIDMulti, kind+"listjids", "The "+kind+"list", list...), nil
	}
}

// editList puts the list that was sent in the place of the old one.
func (a *component) editList(kind string) func(context.Context, *commands.Execution) (*commands.Outcome, error) {
	return func(ctx context.Context, e *commands.Execution) (*commands.Outcome, error) {
		var list []string
		if f, ok := e.Last().Field(kind + "listjids"); ok {
			if len(f.Values) > maxListed {
				return nil, stanza.NewError(stanza.NotAcceptable, "at most "+strconv.Itoa(maxListed)+" entries")
			}
			for _, v := range f.Values {
				j, err := jid.Parse(v)
				if err != nil || a.env.Local(j.Domain()) {
					return nil, stanza.NewError(stanza.NotAcceptable, v+" is no entity of another server; accounts here are disabled")
				}
				list = append(list, j.String())
			}
		}
		defer a.changed(context.WithoutCancel(ctx), e.Domain) // it may be committed whatever came back
		return nil, a.store.setList(ctx, e.Domain, kind, list)
	}
}

// allows reports whether accounts of a domain may have to do with an entity. The most
// exact entry counts, whatever its list (XEP-0016 §2.1); a whitelist with anybody in
// it shuts out who is in neither.
func (p *policy) allows(other jid.JID) bool {
	for _, at := range forms(other) {
		switch {
		case p.lists[white][at]:
			return true
		case p.lists[black][at]:
			return false
		}
	}
	return len(p.lists[white]) == 0
}

// forms are the addresses by which an entity may be listed, the most exact first.
func forms(j jid.JID) []jid.JID {
	out := []jid.JID{j}
	if !j.IsBare() {
		out = append(out, j.Bare())
		if j.Local() != "" {
			if at, err := j.Host().WithResource(j.Resource()); err == nil {
				out = append(out, at)
			}
		}
	}
	return append(out, j.Host())
}

// stops reports whether the lists of a domain keep it from an entity.
func (a *component) stops(ctx context.Context, domain, other jid.JID) (bool, error) {
	if other.IsZero() || a.env.Local(other.Domain()) {
		return false, nil
	}
	p, err := a.policies.of(ctx, domain)
	return err == nil && !p.allows(other), err
}

func (a *component) outgoing(ctx context.Context, f *processor.Flow) (processor.Verdict, error) {
	stop, err := a.stops(ctx, f.Session.JID.Host(), f.To)
	if err != nil || !stop {
		return processor.Continue, err
	}
	return processor.Stop, stanza.NewError(stanza.NotAllowed, "the administrators of this server do not let you talk to "+f.To.Domain())
}

// incoming answers as if nobody was there, like a blocked account (XEP-0191 §3.3).
func (a *component) incoming(ctx context.Context, f *processor.Flow) (processor.Verdict, error) {
	stop, err := a.stops(ctx, f.Account.Host(), f.From)
	switch {
	case err != nil || !stop:
		return processor.Continue, err
	case f.Kind == stanza.Presence:
		return processor.Stop, nil
	}
	return processor.Stop, stanza.NewError(stanza.ServiceUnavailable, "")
}
