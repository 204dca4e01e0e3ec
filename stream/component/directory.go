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
	names := d.all()
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

// all are all components; mu is held.
func (d *Directory) all() map[string]known {
	out := map[string]known{}
	for _, entries := range d.fronts {
		maps.Copy(out, entries)
	}
	for domain, e := range d.entries {
		out[domain] = known{e.Name, e.Grants}
	}
	return out
}

// find is one of all; mu is held.
func (d *Directory) find(domain string) (known, bool) {
	if e, ok := d.entries[domain]; ok {
		return known{e.Name, e.Grants}, true
	}
	for _, entries := range d.fronts {
		if k, ok := entries[domain]; ok {
			return k, true
		}
	}
	return known{}, false
}

// Grants are what the component of the domain was given; none when there is no
// such component.
func (d *Directory) Grants(domain string) Grants {
	d.mu.RLock()
	defer d.mu.RUnlock()
	k, _ := d.find(domain)
	return k.Grants
}

// Granted returns the domains of the components for whose grants pick returns
// true, in order, connected or not.
func (d *Directory) Granted(pick func(*Grants) bool) (domains []string) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for domain, k := range d.all() {
		if pick(&k.Grants) {
			domains = append(domains, domain)
		}
	}
	slices.Sort(domains)
	return domains
}

// Delegate is who answers requests of a namespace; "": the house.
func (d *Directory) Delegate(ns string) (domain string, how Delegation) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for domain, e := range d.entries {
		if how, ok := e.Delegations[ns]; ok {
			return domain, how
		}
	}
	for _, entries := range d.fronts {
		for domain, k := range entries {
			if how, ok := k.Delegations[ns]; ok {
				return domain, how
			}
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
	_, ok := d.find(domain)
	return ok
}

// Connected returns the components that are there, in no particular order.
func (d *Directory) Connected() []Item {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var out []Item
	for domain, k := range d.all() {
		if x, ok := d.connected(domain); ok {
			out = append(out, Item{JID: x.JID, Name: k.Name})
		}
	}
	return out
}
