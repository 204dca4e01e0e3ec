package admincommands

import (
	"context"
	"slices"
	"strconv"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/plugins/accounts"
	"parley/plugins/commands"
	"parley/router/sessions"
)

// source finds accounts of a domain: up to most of them, and how many there are.
type source func(ctx context.Context, domain string, most int) (some []jid.JID, all int64, err error)

// maxShown is how many accounts a list has when nobody says; more are not to be had
// over XMPP (XEP-0133 §4.17: the list may be cut).
const maxShown = 1000

// maxItems is XEP-0133 §4.17.
func maxItems() []form.Field {
	f := form.Field{Var: "max_items", Type: form.ListSingle, Label: "Maximum number of items to show"}
	for _, n := range []string{"25", "50", "75", "100", "150", "200"} {
		f.Options = append(f.Options, form.Option{Value: n, Label: n})
	}
	f.Options = append(f.Options, form.Option{Value: "none", Label: "As many as there are, up to " + strconv.Itoa(maxShown)})
	return []form.Field{f}
}

// count is XEP-0133 §4.12 to §4.16.
func (a *component) count(name string, from source) func(context.Context, *commands.Execution) (*commands.Outcome, error) {
	return func(ctx context.Context, e *commands.Execution) (*commands.Outcome, error) {
		_, n, err := from(ctx, e.Domain.Domain(), 0)
		if err != nil {
			return nil, err
		}
		return &commands.Outcome{Payload: []*stanza.Element{shown(field(name, strconv.FormatInt(n, 10)))}}, nil
	}
}

// list is XEP-0133 §4.17 to §4.21.
func (a *component) list(name string, from source) func(context.Context, *commands.Execution) (*commands.Outcome, error) {
	return func(ctx context.Context, e *commands.Execution) (*commands.Outcome, error) {
		most := maxShown
		if v := e.Last().Value("max_items"); v != "" && v != "none" {
			n, err := strconv.Atoi(v)
			if err != nil || n < 1 {
				return nil, stanza.NewError(stanza.NotAcceptable, "max_items: a number, or none")
			}
			most = min(n, maxShown)
		}
		some, _, err := from(ctx, e.Domain.Domain(), most)
		if err != nil {
			return nil, err
		}
		out := field(name)
		for _, j := range some {
			out.Values = append(out.Values, j.String())
		}
		return &commands.Outcome{Payload: []*stanza.Element{shown(out)}}, nil
	}
}

// stored is a source that the accounts' tables are.
func stored(most int, count func() (int64, error), list func(int) ([]accounts.Account, error)) (some []jid.JID, all int64, err error) {
	if most == 0 {
		all, err = count()
		return nil, all, err
	}
	found, err := list(most)
	for _, acc := range found {
		some = append(some, acc.JID)
	}
	return some, int64(len(some)), err
}

func (a *component) registered(ctx context.Context, domain string, most int) ([]jid.JID, int64, error) {
	return stored(most, func() (int64, error) { return a.accounts.Count(ctx, domain) },
		func(n int) ([]accounts.Account, error) { return a.accounts.List(ctx, domain, jid.JID{}, n) })
}

func (a *component) disabled(ctx context.Context, domain string, most int) ([]jid.JID, int64, error) {
	return stored(most, func() (int64, error) { return a.accounts.CountDisabled(ctx, domain) },
		func(n int) ([]accounts.Account, error) { return a.accounts.ListDisabled(ctx, domain, jid.JID{}, n) })
}

// What an account's sessions have to be for it to count.
func anybody([]*sessions.Entry) bool { return true }

func active(all []*sessions.Entry) bool { return slices.ContainsFunc(all, attended) }

func idle(all []*sessions.Entry) bool { return !active(all) }

// attended reports whether somebody is there, as far as presence tells: available, and
// neither away nor away for long (RFC 6121 §4.7.2.1).
func attended(e *sessions.Entry) bool {
	if !e.Available {
		return false
	}
	p, err := stanza.Parse(e.Presence, stanza.NSClient, nil)
	if err != nil {
		return true
	}
	show := p.Child(stanza.NSClient, "show")
	return show == nil || show.Text() != "away" && show.Text() != "xa"
}

// online finds accounts by their sessions on all nodes, of which each knows all.
func (a *component) online(wanted func([]*sessions.Entry) bool) source {
	return func(_ context.Context, domain string, most int) (some []jid.JID, all int64, err error) {
		var last jid.JID // the registry goes through an account's sessions together
		a.env.Sessions.Each(func(e *sessions.Entry) bool {
			who := e.JID.Bare()
			if e.Kind != sessions.Client || who.Domain() != domain || who == last {
				return true
			}
			last = who
			if !wanted(a.env.Sessions.Account(who)) {
				return true
			}
			if all++; len(some) < most {
				some = append(some, who)
			}
			return most == 0 || len(some) < most
		})
		return some, all, nil
	}
}
