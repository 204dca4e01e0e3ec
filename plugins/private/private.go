// Package private keeps XML that clients store for themselves (XEP-0049).
//
// What is stored is found by the name of its root element, namespace included.
// Nobody but the account's own clients gets to it: to others an account that
// has something stored looks like one that does not exist.
package private

import (
	"context"
	"embed"
	"fmt"
	"strings"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/config"
	"parley/processor"
)

// NS is the namespace of XEP-0049 §2.
const NS = "jabber:iq:private"

//go:embed sql
var migrations embed.FS

// Plugin provides the component and the contract *Store.
var Plugin = plugins.Plugin{
	Name:       "private",
	Doc:        "Keeps what clients want to remember: bookmarks, notes, preferences.",
	Components: []plugins.Maker{{Server: processor.Name, Defaults: defaults(), New: newPrivate}},
	Migrations: migrations,
	Contract:   func(env plugins.Env) (any, error) { return &Store{env}, nil },
}

// Config is the component's section.
type Config struct {
	MaxItem  config.Size `yaml:"max_item_size" min:"1KiB" max:"16MiB" doc:"Largest element that is stored."`
	MaxItems int         `yaml:"max_items" min:"1" max:"10000" doc:"Elements that one account may store."`
	MaxTotal config.Size `yaml:"max_total_size" min:"1KiB" doc:"What one account may store altogether."`
}

func defaults() *Config { return &Config{MaxItem: 64 << 10, MaxItems: 100, MaxTotal: 1 << 20} }

// Access is the event of Fetching and Storing.
type Access struct {
	Owner jid.JID // bare
	Item
}

// Where features take part that keep some of it elsewhere.
var (
	// Fetching fires before a client gets what is stored under a name. Hooks may
	// change Data, which is nil when there is nothing; it must not be written to.
	Fetching = processor.NewHook[*Access]("private-fetching")
	// Storing fires before something is stored: hooks may change Data. An error
	// refuses the whole request.
	Storing = processor.NewHook[*Access]("private-storing")
)

type private struct {
	cfg   Config
	store *Store
	reg   *processor.Registrar
}

var _ processor.Component = (*private)(nil)

func newPrivate(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	p := &private{cfg: *defaults()}
	if err := c.Decode(&p.cfg); err != nil {
		return nil, err
	}
	var err error
	p.store, err = plugins.Need[*Store](env, "private")
	return p, err
}

// Start implements plugins.Component.
func (*private) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (*private) Stop(context.Context) error { return nil }

// Register implements processor.Component.
func (p *private) Register(r *processor.Registrar) {
	p.reg = r
	r.Feature(NS)
	r.AccountFeature(NS)
	r.IQ(NS, "query", processor.Self, p.answer)
	processor.On(r, processor.AccountRemoved, processor.Normal, func(ctx context.Context, account jid.JID) (processor.Verdict, error) {
		return processor.Continue, p.store.forget(ctx, account)
	})
}

func (p *private) answer(ctx context.Context, q *processor.IQ) (*stanza.Element, error) {
	if q.Set() {
		return nil, p.set(ctx, q)
	}
	return p.get(ctx, q)
}

// get is XEP-0049 §2.3: the query names one element. What was never stored
// comes back empty, as it was asked for.
func (p *private) get(ctx context.Context, q *processor.IQ) (*stanza.Element, error) {
	if q.Query.Count() != 1 { // XEP-0049 §3
		return nil, stanza.NewError(stanza.BadRequest, "ask for exactly one element")
	}
	el := q.Query.First()
	if err := check(el); err != nil {
		return nil, err
	}
	data, err := p.store.Get(ctx, q.Owner, el.Name)
	if err != nil {
		return nil, err
	}
	found := &Access{Owner: q.Owner, Item: Item{el.Name, data}}
	if _, err := processor.Fire(ctx, p.reg, Fetching, found); err != nil {
		return nil, err
	}
	out := stanza.El(NS, "query")
	if found.Data == nil {
		return out.Add(stanza.El(el.Name.Space, el.Name.Local)), nil
	}
	return out.AddRaw(found.Data), nil
}

// set is XEP-0049 §2.3. Elements of one name belong together: they replace
// what was stored under it.
func (p *private) set(ctx context.Context, q *processor.IQ) error {
	var names []stanza.Name
	data := map[stanza.Name][]byte{}
	for el := range q.Query.Elements() {
		if err := check(el); err != nil {
			return err
		}
		if _, more := data[el.Name]; !more {
			names = append(names, el.Name)
		}
		data[el.Name] = el.Append(data[el.Name], NS)
		if len(data[el.Name]) > int(p.cfg.MaxItem) {
			return stanza.NewError(stanza.PolicyViolation, "that is too much to store")
		}
	}
	if len(names) == 0 {
		return stanza.NewError(stanza.NotAcceptable, "nothing to store")
	}
	items := make([]Item, 0, len(names))
	for _, n := range names {
		a := &Access{Owner: q.Owner, Item: Item{n, data[n]}}
		if _, err := processor.Fire(ctx, p.reg, Storing, a); err != nil {
			return err
		}
		items = append(items, a.Item)
	}
	return p.store.put(ctx, q.Owner, items, p.cfg)
}

// reserved are the namespaces that nobody may store anything under (XEP-0049
// §2.3).
var reserved = []string{"jabber:", "http://jabber.org/"}

// check returns why an element cannot be stored (XEP-0049 §2.3, §3).
func check(el *stanza.Element) error {
	ns := el.Name.Space
	bad := ns == "" || ns == "vcard-temp" || len(ns)+len(el.Name.Local) > maxNameBytes
	for _, r := range reserved {
		bad = bad || strings.HasPrefix(ns, r)
	}
	if bad {
		return stanza.NewError(stanza.NotAcceptable, fmt.Sprintf("<%s/> needs a namespace of its own", el.Name.Local))
	}
	return nil
}

const maxNameBytes = 1024
