// Package vcard keeps accounts' vCards (XEP-0054): the owner writes, everybody
// reads.
//
// To somebody else, an account without a vCard is an account that does not
// exist (XEP-0054 §3.3, rule 35). Other features learn of new vCards by the
// hook Changed, take part in what others see of them by the hook Read, and read
// and write them by the contract *Cards.
package vcard

import (
	"context"
	"embed"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/config"
	"parley/processor"
)

// NS is the namespace of XEP-0054 §7.1.
const NS = "vcard-temp"

//go:embed sql
var migrations embed.FS

// Plugin provides the component and the contract *Cards.
var Plugin = plugins.Plugin{
	Name:       "vcard",
	Doc:        "Keeps people's visiting cards: names, pictures, addresses.",
	Components: []plugins.Maker{{Server: processor.Name, Defaults: defaults(), New: newComponent}},
	Migrations: migrations,
	Contract:   func(env plugins.Env) (any, error) { return &Cards{env: env}, nil },
}

// Config is the component's section.
type Config struct {
	MaxSize config.Size `yaml:"max_size" min:"1KiB" max:"16MiB" doc:"Largest vCard, its picture included. A stanza's limit bounds it, too."`
}

func defaults() *Config { return &Config{MaxSize: 256 << 10} }

// Change is the event of Changed.
type Change struct {
	Owner jid.JID         // bare
	Card  *stanza.Element // must not be changed
}

// View is the event of Read.
type View struct {
	Owner jid.JID         // bare
	By    jid.JID         // who asks
	Card  *stanza.Element // as it is stored; nil: there is none. Hooks may change it, or put another one in its place
}

var (
	// Changed fires when an account has stored a vCard, before its client is told
	// so.
	Changed = processor.NewHook[*Change]("vcard-changed")
	// Read fires before somebody gets a vCard.
	Read = processor.NewHook[*View]("vcard-read")
)

type component struct {
	cfg   Config
	cards *Cards
	reg   *processor.Registrar
}

var _ processor.Component = (*component)(nil)

func newComponent(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	v := &component{cfg: *defaults()}
	if err := c.Decode(&v.cfg); err != nil {
		return nil, err
	}
	var err error
	v.cards, err = plugins.Need[*Cards](env, "vcard")
	return v, err
}

// Start implements plugins.Component.
func (*component) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (*component) Stop(context.Context) error { return nil }

// Register implements processor.Component.
func (v *component) Register(r *processor.Registrar) {
	v.reg = r
	r.Feature(NS) // XEP-0054 §4
	r.AccountFeature(NS)
	r.IQ(NS, "vCard", processor.Self, v.own)
	r.IQ(NS, "vCard", processor.Account, v.others)
	processor.On(r, processor.AccountRemoved, processor.Normal, func(ctx context.Context, account jid.JID) (processor.Verdict, error) {
		return processor.Continue, v.cards.forget(ctx, account)
	})
}

// own is XEP-0054 §3.1 and §3.2.
func (v *component) own(ctx context.Context, q *processor.IQ) (*stanza.Element, error) {
	if q.Set() {
		return nil, v.set(ctx, q)
	}
	card, err := v.read(ctx, q)
	if err == nil && card == nil {
		return nil, stanza.NewError(stanza.ItemNotFound, "")
	}
	return card, err
}

// read returns what the asker gets to see; nil: nothing.
func (v *component) read(ctx context.Context, q *processor.IQ) (*stanza.Element, error) {
	card, err := v.cards.Get(ctx, q.Owner)
	if err != nil {
		return nil, err
	}
	view := &View{Owner: q.Owner, By: q.From, Card: card}
	_, err = processor.Fire(ctx, v.reg, Read, view)
	return view.Card, err
}

func (v *component) set(ctx context.Context, q *processor.IQ) error {
	if len(q.Query.Bytes("")) > int(v.cfg.MaxSize) {
		return stanza.NewError(stanza.PolicyViolation, "the vCard is too large")
	}
	if err := v.cards.Set(ctx, q.Owner, q.Query); err != nil {
		return err
	}
	_, err := processor.Fire(ctx, v.reg, Changed, &Change{Owner: q.Owner, Card: q.Query})
	return err
}

// others is XEP-0054 §3.3.
func (v *component) others(ctx context.Context, q *processor.IQ) (*stanza.Element, error) {
	if q.Set() { // §3.2; whether the account exists plays no part
		return nil, stanza.NewError(stanza.Forbidden, "")
	}
	card, err := v.read(ctx, q)
	if err == nil && card == nil {
		return nil, stanza.NewError(stanza.ServiceUnavailable, "")
	}
	return card, err
}
