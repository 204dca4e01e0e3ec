package admincommands

import (
	"context"
	"slices"
	"sync/atomic"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/plugins/commands"
)

// role is what somebody may do.
type role uint8

const (
	nobody   role = iota
	ofDomain      // what concerns the domain, but not administrators of the server
	ofServer
)

// Roles tells who administers what. It is the plugin's contract.
type Roles struct {
	store store
	whole atomic.Pointer[map[jid.JID]bool] // of the server, as the configuration says; nil: the component does not run
}

// Administers reports whether the account, bare, administers a domain.
func (r *Roles) Administers(ctx context.Context, account, domain jid.JID) (bool, error) {
	is, err := r.of(ctx, account, domain)
	return is > nobody, err
}

// of says what an account may do at a domain.
func (r *Roles) of(ctx context.Context, account, domain jid.JID) (role, error) {
	whole := r.whole.Load()
	switch {
	case whole == nil:
		return nobody, nil
	case (*whole)[account]:
		return ofServer, nil
	case account.Domain() != domain.Domain(): // administrators of a domain live there
		return nobody, nil
	}
	ok, err := r.store.isAdmin(ctx, domain, account)
	if err != nil || !ok {
		return nobody, err
	}
	return ofDomain, nil
}

// targets are the accounts that a form names, all of them of the asker's domain and
// within the asker's power.
func (a *component) targets(e *commands.Execution, field string, full bool) ([]jid.JID, error) {
	f, ok := e.Last().Field(field)
	if !ok || len(f.Values) == 0 {
		return nil, stanza.NewError(stanza.BadRequest, field+": whom?")
	}
	if len(f.Values) > maxTargets {
		return nil, stanza.NewError(stanza.NotAcceptable, field+": too many at one time")
	}
	var out []jid.JID
	for _, v := range f.Values {
		j, err := jid.Parse(v)
		switch {
		case err != nil, j.Local() == "", j.Domain() != e.Domain.Domain(), !full && !j.IsBare():
			return nil, stanza.NewError(stanza.NotAcceptable, field+": "+v+" is no account of this domain")
		case a.whole[j.Bare()] && !a.whole[e.Account()]:
			return nil, stanza.NewError(stanza.Forbidden, v+" administers the server")
		}
		if !slices.Contains(out, j) {
			out = append(out, j)
		}
	}
	return out, nil
}

// maxTargets is how many accounts one command may be about.
const maxTargets = 100

// maxAdmins is how many administrators a domain may have besides those of the
// server.
const maxAdmins = 100

// adminForm is XEP-0133 §4.29; administrators of the server are not in the list,
// because their names are in the configuration.
func (a *component) adminForm(ctx context.Context, e *commands.Execution) (*form.Form, error) {
	list, err := a.store.admins(ctx, e.Domain)
	if err != nil {
		return nil, err
	}
	f := &form.Form{Instructions: "Administrators of this domain, one a line. Those of the whole server are named in its configuration."}
	return f.Add(form.JIDMulti, "adminjids", "The admin list", list...), nil
}

func (a *component) editAdmins(ctx context.Context, e *commands.Execution) (*commands.Outcome, error) {
	var list []string
	if f, _ := e.Last().Field("adminjids"); f != nil && len(f.Values) > 0 {
		all, err := a.targets(e, "adminjids", false)
		if err != nil {
			return nil, err
		}
		for _, j := range all {
			ok, err := a.accounts.Exists(ctx, j)
			if err != nil {
				return nil, err
			}
			if !ok {
				return nil, stanza.NewError(stanza.ItemNotFound, j.String()+" has no account")
			}
			list = append(list, j.String())
		}
	}
	if len(list) > maxAdmins {
		return nil, stanza.NewError(stanza.NotAcceptable, "too many administrators")
	}
	return nil, a.store.setAdmins(ctx, e.Domain, list)
}
