// Package mucsub lets accounts follow rooms without being in them: urn:xmpp:mucsub:0,
// as the clients of ejabberd speak it (spec "Group members who are offline").
//
// A subscription is asked for at the room, with the nodes of events that are wanted;
// those for messages and subjects are served. What the room says then goes, wrapped
// in a publish-subscribe event, to the account of each subscriber who is not in the
// room: to its devices that are there, else it waits until one comes. It is not
// kept in the account's archive, because the room's has it.
//
// Subscribers are accounts of ours. A message is on its way in the room before it is
// submitted to them: when the room's node dies in between, they find it in the
// room's archive alone.
package mucsub

import (
	"context"
	"embed"
	"slices"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/muc"
	"parley/processor"
	"parley/storage/cache"
)

//go:embed sql
var migrations embed.FS

// Names and namespaces.
const (
	Name    = "mucsub"
	NS      = "urn:xmpp:mucsub:0"
	nsEvent = "http://jabber.org/protocol/pubsub#event"
)

// Nodes of what is served.
const (
	nodeMessages = "urn:xmpp:mucsub:nodes:messages"
	nodeSubject  = "urn:xmpp:mucsub:nodes:subject"
)

// Plugin provides the component.
var Plugin = plugins.Plugin{
	Name:       Name,
	Doc:        "Accounts follow rooms without being in them, as clients of ejabberd do.",
	Requires:   []string{muc.Name},
	Components: []plugins.Maker{{Server: processor.Name, Defaults: defaults(), New: newPart}},
	Migrations: migrations,
}

// Config is the component's section.
type Config struct {
	PerAccount int `yaml:"max_per_account" min:"1" max:"10000" unit:"rooms" doc:"Rooms that one account may follow."`
	PerRoom    int `yaml:"max_per_room" min:"1" max:"10000" unit:"accounts" doc:"Accounts that may follow one room without being in it."`
}

func defaults() *Config { return &Config{PerAccount: 200, PerRoom: 1000} }

type part struct {
	env   plugins.Env
	cfg   Config
	reg   *processor.Registrar
	rooms *cache.Cache[jid.JID, []subscription]
}

var _ processor.Component = (*part)(nil)

// What is remembered of rooms' subscribers.
const (
	topic       = "mucsub"
	cachedRooms = 5000
	cacheTTL    = 5 * time.Minute // how late another node's change is seen when word of it is lost
)

func newPart(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	p := &part{env: env, cfg: *defaults()}
	if err := c.Decode(&p.cfg); err != nil {
		return nil, err
	}
	o := plugins.CachedAccounts[[]subscription](env, topic, cacheTTL)
	o.Size = cachedRooms
	var err error
	p.rooms, err = cache.New(o)
	return p, err
}

// Start implements plugins.Component.
func (*part) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (*part) Stop(context.Context) error { return nil }

// Register implements processor.Component.
func (p *part) Register(r *processor.Registrar) {
	p.reg = r
	processor.On(r, muc.Asked, processor.Normal, p.asked)
	processor.On(r, muc.Posted, processor.Normal, p.posted)
	processor.On(r, muc.Affiliated, processor.Normal, p.affiliated)
	processor.On(r, muc.Destroyed, processor.Normal, func(ctx context.Context, e *muc.Destruction) (processor.Verdict, error) {
		return processor.Continue, p.forgetRoom(ctx, e.Room)
	})
	processor.On(r, muc.Describing, processor.Normal, func(_ context.Context, e *muc.Description) (processor.Verdict, error) {
		e.AddFeature(NS)
		return processor.Continue, nil
	})
	processor.On(r, processor.AccountRemoved, processor.Normal, func(ctx context.Context, account jid.JID) (processor.Verdict, error) {
		return processor.Continue, p.forgetAccount(ctx, account)
	})
}

// posted wraps what a room says for those who follow it and are not there.
func (p *part) posted(ctx context.Context, e *muc.Post) (processor.Verdict, error) {
	if !e.Lasting { // nobody who is away wants to know who was typing
		return processor.Continue, nil
	}
	all, err := p.followers(ctx, e.Room)
	if err != nil || len(all) == 0 {
		return processor.Continue, err
	}
	node := nodeMessages
	if e.Subject {
		node = nodeSubject
	}
	member := func(account jid.JID) bool {
		return slices.ContainsFunc(e.Members, func(m muc.Member) bool { return m.JID == account })
	}
	var out []*stanza.Stanza
	for _, s := range all {
		if s.wants(node) && !e.Present(s.account) && !e.Outcast(s.account) && s.reaches(e.Room, e.Config, member(s.account)) {
			out = append(out, wrapped(e, node, s.account))
		}
	}
	p.reg.Submit(ctx, out...)
	return processor.Continue, nil
}

// wrapped is a room's message as an event of a node, for one account.
func wrapped(e *muc.Post, node string, to jid.JID) *stanza.Stanza {
	own := e.Stanza.Clone()
	own.To = to
	edits := own.StampForwarded()
	item := stanza.El(nsEvent, "item").With("id", e.StanzaID).AddRaw(edits.Render(nil, e.Stanza.Raw))
	return stanza.Make(stanza.Message, "", e.Room, to, e.StanzaID,
		stanza.El(nsEvent, "event").Add(stanza.El(nsEvent, "items").With("node", node).Add(item)),
		stanza.El(stanza.NSHints, "store"), stanza.El(stanza.NSHints, "no-permanent-store"))
}

// affiliated ends the subscriptions of those who may not follow any more.
func (p *part) affiliated(ctx context.Context, e *muc.Affiliating) (processor.Verdict, error) {
	var err error
	switch {
	case e.Is == muc.IsOutcast:
		err = p.ban(ctx, e.Room, e.JID)
	case e.Was == muc.IsOutcast:
		err = p.unban(ctx, e.Room, e.JID)
	case e.Was >= muc.IsMember && e.Is < muc.IsMember:
		err = p.unsubscribe(ctx, e.Room, e.JID)
	}
	return processor.Continue, err
}
