package component

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/router/sessions"
)

// Directory knows the components that are configured; it is the contract. A
// core's knows those of its fronts, too: what they have told it last, so that a
// component is only away when its front is.
type Directory struct {
	env      plugins.Env
	sessions *sessions.Registry

	mu      sync.RWMutex
	door    string
	entries map[string]Entry
	fronts  map[string]map[string]known // by front and domain
	all     map[string]known            // of both, by domain; never changed
	domains []string                    // its keys, in order
}

// known is what others may know of an entry.
type known struct {
	Name string `json:"name"`
	Grants
}

// Item is a component that is connected.
type Item struct {
	JID  jid.JID
	Name string // "" when it has none
}

// callEntries is what a front tells its core: what is known, by domain, as JSON.
const callEntries = "component.entries"

func newDirectory(env plugins.Env) *Directory {
	d := &Directory{env: env, sessions: env.Sessions, fronts: map[string]map[string]known{}}
	env.OnAnswer(callEntries, d.learn)
	if env.Halves != nil {
		env.Halves.Attached(d.tell)
	}
	return d
}

func (d *Directory) set(entries map[string]Entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.entries = maps.Clone(entries)
	d.merge()
}

// Door is where components connect to this process; "": nowhere.
func (d *Directory) Door() string {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.door
}

func (d *Directory) setDoor(address string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.door = address
}

// tellWithin is how long a core may take to hear of it.
const tellWithin = 2 * time.Second

// tell lets the core know what this front's components are. One that comes later
// hears of it when it is there.
func (d *Directory) tell() {
	if !d.env.Front() {
		return
	}
	d.mu.RLock()
	names := d.all // never changed
	d.mu.RUnlock()
	text, err := json.Marshal(names)
	if err != nil {
		d.env.Log.Error("components not told to the core", "err", err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), tellWithin)
	defer cancel()
	if _, err := d.env.Halves.CallCore(ctx, callEntries, text); err != nil {
		d.env.Log.Warn("components not told to the core", "err", err)
	}
}

// learn is what a front tells.
func (d *Directory) learn(_ context.Context, front string, text []byte) ([]byte, error) {
	var names map[string]known
	if err := json.Unmarshal(text, &names); err != nil {
		return nil, fmt.Errorf("components of %s: %w", front, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fronts[front] = names
	d.merge()
	return nil, nil
}

func (d *Directory) connected(domain string) (*sessions.Entry, bool) {
	at, err := jid.New("", domain, "")
	if err != nil {
		return nil, false
	}
	e, ok := d.sessions.Find(at)
	return e, ok && e.Kind == sessions.Component
}

// merge makes one list of all components: what is known here counts first, then what
// the first front by name says. mu is held.
func (d *Directory) merge() {
	d.all = map[string]known{}
	for _, front := range slices.Backward(slices.Sorted(maps.Keys(d.fronts))) {
		maps.Copy(d.all, d.fronts[front])
	}
	for domain, e := range d.entries {
		d.all[domain] = known{e.Name, e.Grants}
	}
	d.domains = slices.Sorted(maps.Keys(d.all))
}

// Grants are what the component of the domain was given; none when there is no
// such component.
func (d *Directory) Grants(domain string) Grants {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.all[domain].Grants
}

// Granted returns the domains of the components for whose grants pick returns
// true, in order, connected or not.
func (d *Directory) Granted(pick func(*Grants) bool) (domains []string) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for _, domain := range d.domains {
		if k := d.all[domain]; pick(&k.Grants) {
			domains = append(domains, domain)
		}
	}
	return domains
}

// Delegate is who answers requests of a namespace; "": the house.
func (d *Directory) Delegate(ns string) (domain string, how Delegation) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for _, domain := range d.domains {
		if how, ok := d.all[domain].Delegations[ns]; ok {
			return domain, how
		}
	}
	return "", Delegation{}
}

// Here reports whether the component is connected, to any node.
func (d *Directory) Here(domain string) bool {
	_, ok := d.connected(domain)
	return ok
}

// Known reports whether the domain is a component's, connected or not.
func (d *Directory) Known(domain string) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	_, ok := d.all[domain]
	return ok
}

// Connected returns the components that are there, in no particular order.
func (d *Directory) Connected() []Item {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var out []Item
	for domain, k := range d.all {
		if x, ok := d.connected(domain); ok {
			out = append(out, Item{JID: x.JID, Name: k.Name})
		}
	}
	return out
}
