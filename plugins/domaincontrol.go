package plugins

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"parley/parser/jid"
	"parley/plugins/config"
)

// How domains are added and removed at run time. They are a key of the configuration
// like any other that is set at run time: a version in the database, which every node
// follows (change.go).

// ErrDomain is wrapped by what AddDomain and RemoveDomain refuse.
var ErrDomain = errors.New("not possible with this domain")

// domainsKey is the key of Settings.Domains.
const domainsKey = "domains"

// AddDomain implements Control.
func (c control) AddDomain(ctx context.Context, by, domain string) (Applied, error) {
	return c.redomain(ctx, by, domain, func(now []string, own string) ([]string, error) {
		if slices.Contains(now, own) {
			return now, nil
		}
		next := append(slices.Clone(now), own)
		return next, c.h.admits(next, []string{own})
	})
}

// RemoveDomain implements Control.
func (c control) RemoveDomain(ctx context.Context, by, domain string) (Applied, error) {
	return c.redomain(ctx, by, domain, func(now []string, own string) ([]string, error) {
		at := slices.Index(now, own)
		switch {
		case at < 0:
			return nil, fmt.Errorf("%w: %s is not served; served are %s", ErrDomain, own, strings.Join(now, ", "))
		case len(now) == 1:
			return nil, fmt.Errorf("%w: %s is the last one, and a server has to have one: add another one first", ErrDomain, own)
		}
		return slices.Delete(slices.Clone(now), at, at+1), nil
	})
}

// redomain sets the domains to what f makes of those that count.
func (c control) redomain(ctx context.Context, by, domain string, f func(now []string, own string) ([]string, error)) (Applied, error) {
	j, err := jid.Parse(domain)
	if err != nil || !j.IsDomain() {
		return Applied{}, fmt.Errorf("%w: %q is not a domain", ErrDomain, domain)
	}
	return c.change(ctx, by, nil, func(w wanted) (wanted, error) {
		now, err := domainsOf(w.tree)
		if err != nil {
			return w, err
		}
		next, err := f(now, j.Domain())
		if err != nil || slices.Equal(now, next) {
			return w, err
		}
		if plain, _, err := w.tree.Unset(domainsKey); err == nil { // it may be what the file says
			if file, err := domainsOf(plain); err == nil && slices.Equal(file, next) {
				return w.under(plain), nil
			}
		}
		quoted := make([]string, 0, len(next))
		for _, d := range next {
			quoted = append(quoted, strconv.Quote(d))
		}
		tree, _, err := w.tree.Set(domainsKey, "["+strings.Join(quoted, ", ")+"]", by, c.h.opt.Clock.Now())
		if err != nil {
			return w, err
		}
		return w.under(tree), nil
	})
}

// domainsOf are the domains of a configuration, prepared.
func domainsOf(tree *config.Tree) ([]string, error) {
	s, err := config.Get[Settings](tree, "")
	if err != nil {
		return nil, err
	}
	return s.prepared(), nil
}

// admits says why domains cannot be added: somebody else answers there.
func (h *Host) admits(all, come []string) error {
	for _, d := range come {
		if j, err := jid.New("", d, ""); err == nil {
			if e, bound := h.sessions.Find(j); bound {
				return fmt.Errorf("%w: %s is the address of a component, which is connected to node %s", ErrDomain, d, e.Node)
			}
		}
	}
	return h.domains.check(all)
}

// serve makes the domains of a version those that count on this node.
func (h *Host) serve(w wanted) {
	own, err := domainsOf(w.tree)
	if err != nil || len(own) == 0 { // a tree that is valid has some
		h.opt.Log.Error("the domains are not known", "err", err)
		return
	}
	if come, gone := h.domains.set(own); len(come)+len(gone) > 0 {
		h.opt.Log.Info("other domains are served", "domains", own, "new", come, "gone", gone)
	}
}
