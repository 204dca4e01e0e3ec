package plugins

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"parley/parser/jid"
)

// Domains are those that are served here: what is configured, as it is set at run
// time (Control.AddDomain). It is safe for concurrent use; nil has none.
type Domains struct {
	now atomic.Pointer[[]string]

	changing sync.Mutex // one change at a time: held while watchers are called

	mu       sync.Mutex
	watchers map[int]func(come, gone []string)
	last     int
	services map[string]struct{} // prefixes that Services was asked for
}

// NewDomains are the ones given, prepared.
func NewDomains(domains ...string) *Domains {
	d := &Domains{watchers: map[int]func(come, gone []string){}, services: map[string]struct{}{}}
	d.now.Store(&domains)
	return d
}

// List returns them in the order in which they are configured; there is one at least.
// It must not be changed.
func (d *Domains) List() []string {
	if d == nil {
		return nil
	}
	return *d.now.Load()
}

// Has reports whether the domain is one of them.
func (d *Domains) Has(domain string) bool {
	for _, own := range d.List() {
		if own == domain {
			return true
		}
	}
	return false
}

// Watch lets f be called after every change, one at a time, with what is new and what
// is gone, until stop. f must not change the domains.
func (d *Domains) Watch(f func(come, gone []string)) (stop func()) {
	if d == nil {
		return func() {}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last++
	id := d.last
	d.watchers[id] = f
	return func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.watchers, id)
	}
}

// set changes them, and returns when everybody has heard of it.
func (d *Domains) set(domains []string) (come, gone []string) {
	d.changing.Lock()
	defer d.changing.Unlock()
	before := d.List()
	come = without(domains, before)
	gone = without(before, domains)
	d.now.Store(&domains)
	if len(come) == 0 && len(gone) == 0 {
		return nil, nil
	}
	d.mu.Lock()
	all := slices.Sorted(maps.Keys(d.watchers))
	d.mu.Unlock()
	for _, id := range all {
		d.mu.Lock()
		f := d.watchers[id]
		d.mu.Unlock()
		if f != nil {
			f(come, gone)
		}
	}
	return come, gone
}

func without(all, some []string) (out []string) {
	for _, d := range all {
		if !slices.Contains(some, d) {
			out = append(out, d)
		}
	}
	return out
}

// check says why these cannot be the domains: one is the address of a service.
func (d *Domains) check(domains []string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, prefix := range slices.Sorted(maps.Keys(d.services)) {
		for _, domain := range domains {
			if host := prefix + "." + domain; slices.Contains(domains, host) {
				return fmt.Errorf("%w: %s is the address of a service of %s", ErrDomain, host, domain)
			}
		}
	}
	return nil
}

// Serve reports whether an address is that of a service of one of them, in this process.
func (d *Domains) Serve(host string) bool {
	if d == nil {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for prefix := range d.services {
		if domain, ok := strings.CutPrefix(host, prefix+"."); ok && d.Has(domain) {
			return true
		}
	}
	return false
}

// Services are the addresses of a service, one below each of the domains.
type Services struct {
	domains *Domains
	prefix  string // with the dot; empty: there are none
}

// Services returns the addresses with a prefix. The error is for who has configured it.
func (d *Domains) Services(prefix string) (Services, error) {
	var none Services
	for _, domain := range d.List() {
		host, err := jid.New("", prefix+"."+domain, "")
		if err != nil {
			return none, fmt.Errorf("host_prefix: %w", err)
		}
		if d.Has(host.Domain()) {
			return none, fmt.Errorf("host_prefix: %s is a domain of accounts", host)
		}
		prefix = strings.TrimSuffix(host.Domain(), "."+domain) // prepared
	}
	if d != nil {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.services[prefix] = struct{}{}
	}
	if prefix != "" {
		prefix += "."
	}
	return Services{d, prefix}, nil
}

// Of returns whose domain the service at an address belongs to.
func (s Services) Of(host string) (domain string, ok bool) {
	if s.prefix == "" {
		return "", false
	}
	domain, ok = strings.CutPrefix(host, s.prefix)
	return domain, ok && s.domains.Has(domain)
}

// At is the address of the service of a domain; false: the domain is none of ours.
func (s Services) At(domain string) (jid.JID, bool) {
	if s.prefix == "" || !s.domains.Has(domain) {
		return jid.JID{}, false
	}
	at, err := jid.New("", s.prefix+domain, "")
	return at, err == nil
}
