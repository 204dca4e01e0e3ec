// Package roster keeps accounts' contacts and the states of their presence
// subscriptions.
//
// Specs: RFC 6121 §2 (roster, versioning), §3.4 (pre-approval) and §A (the
// state tables, which stand in states.go as they stand in the RFC).
//
// Flow: a roster get makes the session interested and is answered here with
// the roster, or with an empty result and one push for each item that changed
// since the client's version. A roster set changes one item and pushes it.
// Subscription stanzas are the presence feature's; it asks Rosters.Apply what
// a stanza does in the present state, which changes the roster and pushes.
//
// Read on: states.go (the tables), rosters.go (the contract and how changes
// are made), apply.go (subscriptions), store.go (SQL), get.go.
package roster

import (
	"cmp"
	"context"
	"embed"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/config"
	"parley/processor"
	"parley/storage"
	"parley/stream"
)

//go:embed sql
var migrations embed.FS

// Name is the plugin's name, for Requires and plugins.Need.
const Name = "roster"

// Plugin provides rosters. Its contract is *Rosters.
var Plugin = plugins.Plugin{
	Name: Name,
	Doc:  "Contact lists and the states of presence subscriptions.",
	Components: []plugins.Maker{
		{Server: processor.Name, Defaults: defaults(), New: newComponent},
		{Server: stream.Name, New: newAdvert},
	},
	Migrations: migrations,
	// A client that saw changes which are gone must get the whole roster
	// (XEP-0237 §2.5), not what changed after its version.
	Restored: func(ctx context.Context, tx storage.Tx, reached int64) error {
		_, err := tx.Exec(ctx, `UPDATE roster_versions SET ver = CASE WHEN ver < $1 THEN $1 ELSE ver END, floor = CASE WHEN ver < $1 THEN $1 ELSE ver END`, reached)
		return err
	},
	Contract: func(env plugins.Env) (any, error) { return newRosters(env) },
}

// Removed fires after a contact was taken out of a roster and the push is on
// its way: what is left to do is to end the subscriptions (RFC 6121 §2.5.2).
var Removed = processor.NewHook[*Removal]("roster-removed")

// Removal is the event of Removed.
type Removal struct {
	Owner, Contact jid.JID
	Was            State // without PendingIn: a request that waits goes on waiting
}

// Entrusted fires for a request about a roster that is not its owner's. Without
// a Stop it is refused (RFC 6121 §2.1.5).
var Entrusted = processor.NewHook[*processor.IQ]("roster-entrusted")

// Config is the component's section.
type Config struct {
	Limits
}

// Limits bound what an account may keep.
type Limits struct {
	Items       int         `yaml:"max_items" min:"1" doc:"Contacts in one roster."`
	Size        config.Size `yaml:"max_size" min:"65536" doc:"Addresses, names and groups of one roster together."`
	Groups      int         `yaml:"max_groups" min:"1" doc:"Groups of one contact."`
	Name        config.Size `yaml:"max_name" min:"64" doc:"Length of a contact's or a group's name."`
	Requests    int         `yaml:"max_requests" min:"1" doc:"Subscription requests that may wait for an account's answer; further ones are ignored."`
	RequestSize config.Size `yaml:"max_request" min:"512" doc:"Largest subscription request that is kept complete; a larger one is kept without its extensions."`
}

func defaults() *Config {
	return &Config{Limits{Items: 5000, Size: 2 << 20, Groups: 32, Name: 1 << 10, Requests: 500, RequestSize: 8 << 10}}
}

// component works in the processor.
type component struct {
	rosters *Rosters
	limits  Limits
	env     plugins.Env
	house   *processor.Registrar
}

var _ processor.Component = (*component)(nil)

func newComponent(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	cfg := *defaults()
	if err := c.Decode(&cfg); err != nil {
		return nil, err
	}
	r, err := plugins.Need[*Rosters](env, Name)
	if err != nil {
		return nil, err
	}
	return &component{rosters: r, limits: cfg.Limits, env: env}, nil
}

// Start implements plugins.Component.
func (c *component) Start(context.Context) error {
	c.rosters.limits.Store(&c.limits)
	return nil
}

// Stop implements plugins.Component.
func (c *component) Stop(context.Context) error { return nil }

// Register implements processor.Component.
func (c *component) Register(r *processor.Registrar) {
	c.house = r
	r.Feature(stanza.NSRoster)
	// Gets are answered in the hook: their answer and the pushes of a change
	// that is made at the same time must not overtake each other.
	processor.On(r, processor.Outgoing, processor.Normal, c.get)
	r.IQ(stanza.NSRoster, "query", processor.Self|processor.Account, c.set)
	processor.On(r, processor.AccountRemoved, processor.Late, c.accountRemoved)
}

// set is RFC 6121 §2.1.5. Others' gets come here as well, and are refused like
// their sets, unless somebody vouches for them.
func (c *component) set(ctx context.Context, q *processor.IQ) (*stanza.Element, error) {
	if !q.Own() { // §2.1.5, security warning
		if v, err := processor.Fire(ctx, c.house, Entrusted, q); err != nil || v != processor.Stop {
			return nil, cmp.Or[error](err, stanza.NewError(stanza.Forbidden, ""))
		}
	}
	if !q.Set() { // its own client's are answered in get
		s, err := c.rosters.Contacts(ctx, q.Owner)
		if err != nil {
			return nil, err
		}
		return s.element(), nil
	}
	req, err := parseSet(q.Query)
	if err != nil {
		return nil, err
	}
	if req.remove {
		return nil, c.rosters.Remove(ctx, c.house, q.Owner, req.item.JID)
	}
	return nil, c.rosters.Set(ctx, c.house, q.Owner, req.item)
}

func (c *component) accountRemoved(ctx context.Context, account jid.JID) (processor.Verdict, error) {
	return processor.Continue, c.rosters.forget(ctx, account)
}
