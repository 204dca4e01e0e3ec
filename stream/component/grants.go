package component

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"parley/plugins/config"
)

// NSDelegation is XEP-0355's namespace, which nobody may be given (§7).
const NSDelegation = "urn:xmpp:delegation:2"

// Grants are what a component may do besides being there. Others act on them:
// features privilege and delegation.
type Grants struct {
	Privileges  Privileges            `yaml:"privileges" json:"privileges" doc:"What the component may do in the name of accounts (XEP-0356)."`
	Delegations map[string]Delegation `yaml:"delegations" json:"delegations,omitempty" doc:"IQ namespaces that the component answers in the place of the server (XEP-0355)."`
}

// Access is which requests are granted.
type Access string

// The accesses of XEP-0356 §4.1; empty is None.
const (
	None Access = "none"
	Get  Access = "get"
	Set  Access = "set"
	Both Access = "both"
)

// Allows reports whether a request of the type, get or set, is granted.
func (a Access) Allows(typ string) bool {
	return a == Both || typ == "get" && a == Get || typ == "set" && a == Set
}

// The values of Privileges.Message and Privileges.Presence; empty: none.
const (
	Outgoing      = "outgoing"
	ManagedEntity = "managed_entity"
	Roster        = "roster"
)

// Privileges are XEP-0356's.
type Privileges struct {
	Roster   Access            `yaml:"roster" json:"roster,omitempty" enum:",none,get,set,both" doc:"Rosters of accounts: none, get, set or both. With get or both it hears of changes."`
	NoPush   bool              `yaml:"no_push" json:"no_push,omitempty" doc:"It does not want to hear of changes of rosters."`
	Message  string            `yaml:"message" json:"message,omitempty" enum:",none,outgoing" doc:"outgoing: it may send messages in the name of accounts."`
	Presence string            `yaml:"presence" json:"presence,omitempty" enum:",none,managed_entity,roster" doc:"managed_entity: it hears when accounts come and go; roster: their contacts, too, for which it needs roster get."`
	IQ       map[string]Access `yaml:"iq" json:"iq,omitempty" doc:"Requests that it may send in the name of accounts: none, get, set or both, by the namespace of what they ask."`
}

// Pushes reports whether it hears of changes of rosters (XEP-0356 §4.1).
func (p *Privileges) Pushes() bool { return p.Roster.Allows("get") && !p.NoPush }

// Delegation is one namespace.
type Delegation struct {
	Attributes []string `yaml:"attributes" json:"attributes,omitempty" max:"16" doc:"The component gets only requests whose payload has these attributes."`
}

// maxNamespaces bounds what one component can be given of a kind.
const maxNamespaces = 64

func (g *Grants) check(key string) (errs []error) {
	p := &g.Privileges
	if p.Presence == Roster && !p.Roster.Allows("get") { // XEP-0356 §7.4
		errs = append(errs, config.Key(key+".privileges.presence", "presence of contacts needs roster: get or both"))
	}
	for _, ns := range slices.Sorted(maps.Keys(p.IQ)) {
		if a := p.IQ[ns]; !slices.Contains([]Access{None, Get, Set, Both}, a) {
			errs = append(errs, config.Key(fmt.Sprintf("%s.privileges.iq.%q", key, ns), "%q is not none, get, set or both", a))
		}
	}
	for _, ns := range slices.Sorted(maps.Keys(g.Delegations)) {
		if ns == "" || strings.HasPrefix(ns, NSDelegation) { // XEP-0355 §8
			errs = append(errs, config.Key(fmt.Sprintf("%s.delegations.%q", key, ns), "cannot be delegated"))
		}
	}
	if len(g.Delegations) > maxNamespaces || len(p.IQ) > maxNamespaces {
		errs = append(errs, config.Key(key, "at most %d namespaces", maxNamespaces))
	}
	return errs
}

// once: a namespace is one component's.
func once(all map[string]Entry) (errs []error) {
	taken := map[string]string{}
	for _, domain := range slices.Sorted(maps.Keys(all)) {
		for ns := range all[domain].Delegations {
			if by, ok := taken[ns]; ok {
				errs = append(errs, config.Key(fmt.Sprintf("components.%q.delegations.%q", domain, ns), "is delegated to %s already", by))
			}
			taken[ns] = domain
		}
	}
	return errs
}
