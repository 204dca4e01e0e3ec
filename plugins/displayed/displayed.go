// Package displayed keeps for all devices of an account how far each conversation
// was shown (XEP-0490), in the node urn:xmpp:mds:displayed:0.
//
// Clients publish to it, or let the server do so: <displayed/> in a message that
// goes to the other side anyway is taken out of it before anybody else sees it, the
// archive and the other devices included, and published. Either way the hook
// Displayed tells who counts what is unread.
package displayed

import (
	"context"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/pubsub"
	"parley/processor"
	"parley/router/sessions"
)

// The node, which is a namespace as well, and what is announced (XEP-0490 §4.1,
// §4.5.2).
const (
	NS       = "urn:xmpp:mds:displayed:0"
	NSAssist = "urn:xmpp:mds:server-assist:0"
)

// Name is the plugin's name, for Requires.
const Name = "displayed"

// Plugin provides the component.
var Plugin = plugins.Plugin{
	Name:       Name,
	Doc:        "What was read on one device is read on all.",
	Requires:   []string{pubsub.Name},
	Components: []plugins.Maker{{Server: processor.Name, New: newComponent}},
}

// Mark is the event of Displayed.
type Mark struct {
	Account      jid.JID // bare
	Conversation jid.JID // a contact or a room, bare; an occupant, full
	ID           string  // the stanza-id of the last message that was shown
	By           jid.JID // who has given it: the account, or the room
}

// Displayed fires when an account has published how far a conversation was shown.
// What it says is the client's word (XEP-0490 §5.2): it may be older than what was
// said before, and name messages that there are not.
var Displayed = processor.NewHook[*Mark]("displayed")

type component struct {
	env   plugins.Env
	nodes *pubsub.PubSub
	reg   *processor.Registrar
}

var _ processor.Component = (*component)(nil)

func newComponent(env plugins.Env, _ plugins.Config) (plugins.Component, error) {
	c := &component{env: env}
	var err error
	c.nodes, err = plugins.Need[*pubsub.PubSub](env, pubsub.Name)
	return c, err
}

// Start implements plugins.Component.
func (*component) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (*component) Stop(context.Context) error { return nil }

// Register implements processor.Component.
func (c *component) Register(r *processor.Registrar) {
	c.reg = r
	r.AccountFeature(NSAssist)
	processor.On(r, processor.Outgoing, processor.Early, c.outgoing)
	processor.On(r, pubsub.Defaults, processor.Normal, wellKnown)
	processor.On(r, pubsub.Published, processor.Normal, c.published)
}

// wellKnown is what the node is like (XEP-0490 §4.2, §5.2): nobody's but the
// account's.
func wellKnown(_ context.Context, d *pubsub.Default) (processor.Verdict, error) {
	if d.PEP() && d.Node == NS {
		d.Settings.Access, d.Settings.Persist = pubsub.Whitelist, true
		d.Settings.MaxItems, d.Settings.Last = pubsub.Max, pubsub.Never
	}
	return processor.Continue, nil
}

// outgoing is XEP-0490 §4.5.3. What was asked of the server is done or logged: it
// does not keep the message from going on.
func (c *component) outgoing(ctx context.Context, f *processor.Flow) (processor.Verdict, error) {
	if f.Kind != stanza.Message || f.Session.Kind != sessions.Client || !f.Has(NS, "displayed") {
		return processor.Continue, nil
	}
	payload, ok := assisted(f.Child(NS, "displayed"))
	for _, ch := range f.Children {
		if ch.Name == (stanza.Name{Space: NS, Local: "displayed"}) {
			f.Cut(ch)
		}
	}
	if err := f.Settle(); err != nil { // it must not be leaked (§7)
		return processor.Stop, err
	}
	account := f.Session.JID.Bare()
	if !ok || f.Type == stanza.TypeError {
		return processor.Continue, nil
	}
	entry := pubsub.Entry{ID: f.To.String(), Payload: payload}
	if _, err := c.nodes.Publish(ctx, at(account), account, nil, entry); err != nil {
		c.env.Log.Warn("what was shown is not kept", "account", account.String(), "err", err)
	}
	return processor.Continue, nil
}

func at(account jid.JID) pubsub.Address { return pubsub.Address{Service: account, Node: NS} }

// maxID bounds a stanza-id, in bytes.
const maxID = 1024

// assisted is what is published of <displayed/>: exactly one stanza-id (XEP-0490
// §4.1).
func assisted(el *stanza.Element) (*stanza.Element, bool) {
	id, ok := stanzaID(el)
	if !ok {
		return nil, false
	}
	return stanza.El(NS, "displayed").Add(stanza.El(stanza.NSStanzaID, "stanza-id").With("by", id.Get("by")).With("id", id.Get("id"))), true
}

// stanzaID is the one in <displayed/>.
func stanzaID(el *stanza.Element) (*stanza.Element, bool) {
	if el == nil || el.Count() != 1 {
		return nil, false
	}
	id := el.Child(stanza.NSStanzaID, "stanza-id")
	if id == nil || id.Get("id") == "" || len(id.Get("id")) > maxID || len(id.Get("by")) > maxID {
		return nil, false
	}
	return id, true
}

// published tells of what was shown.
func (c *component) published(ctx context.Context, p *pubsub.Publication) (processor.Verdict, error) {
	if !p.Node.PEP() || p.Node.Node != NS {
		return processor.Continue, nil
	}
	for _, it := range p.Items {
		conversation, err := jid.Parse(it.ID)
		if err != nil || it.Payload == nil || it.Payload.Name != (stanza.Name{Space: NS, Local: "displayed"}) {
			continue // opaque (XEP-0490 §5.2)
		}
		id, ok := stanzaID(it.Payload)
		if !ok {
			continue
		}
		by, err := jid.Parse(id.Get("by"))
		if err != nil {
			continue
		}
		m := &Mark{Account: p.Node.Service, Conversation: conversation, ID: id.Get("id"), By: by}
		if _, err := processor.Fire(ctx, c.reg, Displayed, m); err != nil {
			return processor.Continue, err
		}
	}
	return processor.Continue, nil
}
