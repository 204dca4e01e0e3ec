package plugins

import (
	"fmt"
	"slices"
	"strings"

	"parley/parser/jid"
	"parley/plugins/config"
)

// What is configured otherwise for single domains (config.ByDomain) has to be for
// domains that are served: who misspells one would believe that it counts.

// Misplaced returns config.Findings about what is configured for other domains than
// those that the file has, or that count.
func Misplaced(tree *config.Tree) error {
	domains, err := domainsOf(tree)
	if err != nil {
		return err
	}
	file, err := tree.WithOverlay(config.Overlay{})
	if err != nil {
		return err
	}
	more, err := domainsOf(file) // one that was removed at run time may be back tomorrow
	if err != nil {
		return err
	}
	return tree.Misplaced(func(domain string) error {
		j, err := jid.Parse(domain)
		switch {
		case err != nil || !j.IsDomain():
			return fmt.Errorf("%q is not a domain", domain)
		case !slices.Contains(domains, j.Domain()) && !slices.Contains(more, j.Domain()):
			return fmt.Errorf("%s is not served; served are %s", j, strings.Join(domains, ", "))
		case j.Domain() != domain:
			return fmt.Errorf("addresses have it as %s", j)
		}
		return nil
	})
}

// placed is Misplaced for the start. Where the domains were set at run time it may have
// been done on another node, which knows nothing of this one's file: then it is said,
// and keeps nobody from starting.
func (h *Host) placed(tree *config.Tree) error {
	err := Misplaced(tree)
	if err == nil || !slices.ContainsFunc(tree.Overlay().Settings, func(s config.Setting) bool { return s.Path == domainsKey }) {
		return err
	}
	h.opt.Log.Error("what is configured for domains that are not served does not count", "err", err)
	return nil
}

// misplaces reports what a change would make misplaced; nil also when something was
// before, which is to be put right first where it is.
func misplaces(now, next wanted) error {
	if now.tree == next.tree || Misplaced(now.tree) != nil {
		return nil
	}
	return Misplaced(next.tree)
}
