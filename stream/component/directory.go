package component

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
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
	entries map[string]Entry
	fronts  map[string]map[string]string // by front: names by domain
}

// Item is a component that is connected.
type Item struct {
	JID  jid.JID
	Name string // "" when it has none
}

// callEntries is what a front tells its core: names by domain, as JSON.
const callEntries = "component.entries"

func newDirectory(env plugins.Env) *Directory {
	d := &Directory{env: env, sessions: env.Sessions, fronts: map[string]map[string]string{}}
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

// tellWithin is how long a core may take to hear of it.
const tellWithin = 2 * time.Second

// tell lets the core know what this front's components are. One that comes later
// hears of it when it is there.
func (d *Directory) tell() {
	if !d.env.Front() {
		return
	}
	names := map[string]string{}
	d.mu.RLock()
	for domain, e := range d.entries {
		names[domain] = e.Name
	}
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
	var names map[string]string
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

// names are all components with their names; mu is held.
func (d *Directory) names() map[string]string {
	out := map[string]string{}
	for _, names := range d.fronts {
		maps.Copy(out, names)
	}
	for domain, e := range d.entries {
		out[domain] = e.Name
	}
	return out
}

// Known reports whether the domain is a component's, connected or not.
func (d *Directory) Known(domain string) bool {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if _, ok := d.entries[domain]; ok {
		return true
	}
	for _, names := range d.fronts {
		if _, ok := names[domain]; ok {
			return true
		}
	}
	return false
}

// Connected returns the components that are there, in no particular order.
func (d *Directory) Connected() []Item {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var out []Item
	for domain, name := range d.names() {
		if x, ok := d.connected(domain); ok {
			out = append(out, Item{JID: x.JID, Name: name})
		}
	}
	return out
}
