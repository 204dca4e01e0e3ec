package pubsub

import (
	"context"
	"slices"
	"strconv"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/parser/stanza/rsm"
	"parley/plugins/disco"
	"parley/processor"
)

// supported are the features of XEP-0060 §10 that both kinds of services have;
// get-pending, leased-subscription in full, and multi-subscribe are not.
func supported() []string {
	return []string{
		"auto-create", "config-node", "config-node-max", "create-and-configure", "create-nodes", "delete-items", "delete-nodes",
		"instant-nodes", "item-ids", "last-published", "manage-subscriptions", "member-affiliation", "meta-data",
		"modify-affiliations", "multi-items", "outcast-affiliation", "persistent-items", "presence-notifications", "publish",
		"publish-node-full", "publish-only-affiliation", "publish-options", "publisher-affiliation", "purge-nodes",
		"retract-items", "retrieve-affiliations", "retrieve-default", "retrieve-default-sub", "retrieve-items",
		"retrieve-subscriptions", "rsm", "subscribe", "subscription-notifications", "subscription-options",
	}
}

func features(more ...string) []string {
	out := []string{NS, nsOrder, nsOrder + "@" + NS, nsRelations} // XEP-0413 §6, XEP-0496 §7
	for _, f := range append(supported(), more...) {
		out = append(out, NS+"#"+f)
	}
	slices.Sort(out)
	return out
}

// accountFeatures are those of accounts' own services (XEP-0060 §9, XEP-0163 §6.1).
func accountFeatures() []string {
	return features("access-presence", "auto-subscribe", "filtered-notifications", "presence-subscribe", "pubsub-on-a-jid")
}

// info tells what an account's service is (XEP-0163 §6.1), and of its nodes.
func (c *component) info(ctx context.Context, a *disco.InfoAnswer) (processor.Verdict, error) {
	if a.Server() {
		return processor.Continue, nil
	}
	if a.Node == "" {
		a.AddIdentity(disco.Identity{Category: "pubsub", Type: "pep"})
		return processor.Continue, nil
	}
	known, err := c.describe(ctx, &a.Facts, Address{a.Owner, a.Node}, a.Asker)
	a.Known = a.Known || known
	return processor.Continue, err
}

// describe adds what a node is (XEP-0060 §5.3, §5.4), for those who may retrieve
// from it.
func (c *component) describe(ctx context.Context, f *disco.Facts, at Address, who jid.JID) (bool, error) {
	n, err := c.dir.node(ctx, at)
	if err != nil || n == nil {
		return false, err
	}
	if visible, err := c.visible(ctx, n, who); err != nil || !visible {
		return false, err
	}
	if n, err = c.effective(ctx, n); err != nil {
		return false, err
	}
	f.AddIdentity(disco.Identity{Category: "pubsub", Type: "leaf", Name: n.Settings.Title})
	f.AddFeature(NS)
	if _, err := processor.Fire(ctx, c.reg, Describing, &Description{Facts: f, Service: at.Service, Node: n}); err != nil {
		return false, err
	}
	form, err := c.meta(ctx, n)
	if err != nil {
		return false, err
	}
	f.AddForm(form)
	return true, nil
}

// visibleHere reports whether somebody may know of a node: who may retrieve, or
// ask to.
func (c *component) visibleHere(ctx context.Context, n *Node, who jid.JID) (bool, error) {
	a := n.Affiliation(who)
	if a == Outcast {
		return false, nil
	}
	if a != None || n.Settings.Access == Authorize {
		return true, nil
	}
	return allowed(c.mayReadHere(ctx, n, who))
}

// allowed takes a refusal for no.
func allowed(err error) (bool, error) {
	if _, refused := err.(*stanza.Error); refused { //nolint:errorlint // access.go returns them as they are
		return false, nil
	}
	return err == nil, err
}

// meta is pubsub#meta-data (XEP-0060 §5.4, §16.4.3).
func (c *component) meta(ctx context.Context, n *Node) (disco.Form, error) {
	subs, err := c.store.countSubscribers(ctx, n)
	if err != nil {
		return disco.Form{}, err
	}
	s := &n.Settings
	f := disco.Form{Type: FormMeta}
	add := func(typ, name, label string, values ...string) {
		if len(values) > 0 && values[0] != "" {
			f.Fields = append(f.Fields, disco.Field{Var: "pubsub#" + name, Type: typ, Label: label, Values: values})
		}
	}
	add(form.TextSingle, "type", "What the payloads are", s.Type)
	add(form.JIDSingle, "creator", "Who created the node", n.Creator.String())
	add(form.TextSingle, "creation_date", "When that was", n.Created.UTC().Format(time.RFC3339))
	add(form.TextSingle, "title", "A short name for the node", s.Title)
	add(form.TextSingle, "description", "A description of the node", s.Description)
	add(form.ListSingle, "language", "Default language", s.Language)
	add(form.JIDMulti, "contact", "Whom to contact with questions", texts(s.Contact)...)
	add(form.ListSingle, "access_model", "Who may subscribe and retrieve items", string(s.Access))
	add(form.ListSingle, "publish_model", "Who may publish", string(s.Publish))
	add(form.TextSingle, "max_items", "How many items are kept", strconv.Itoa(min(s.MaxItems, c.cfg.Items)))
	add(form.JIDMulti, "owner", "Owners", texts(n.with(Owner))...)
	add(form.JIDMulti, "publisher", "Publishers", texts(n.with(Publisher))...)
	add(form.TextSingle, "num_subscribers", "Subscribers", strconv.Itoa(subs))
	return f, nil
}

func texts(list []jid.JID) []string {
	out := make([]string, len(list))
	for i, j := range list {
		out[i] = j.String()
	}
	slices.Sort(out)
	return out
}

// discoItems lists the common service, an account's nodes (XEP-0060 §5.2), and a
// node's items (§5.5).
func (c *component) discoItems(ctx context.Context, a *disco.ItemsAnswer) (processor.Verdict, error) {
	switch {
	case a.Server() && a.Node == "" && c.cfg.Prefix != "":
		at, err := c.service(a.Owner.Domain())
		if err == nil {
			a.Items = append(a.Items, disco.Item{JID: at, Name: "Publish-Subscribe"})
		}
		return processor.Continue, err
	case a.Server():
		return processor.Continue, nil
	case a.Node != "":
		items, known, err := c.itemsOf(ctx, Address{a.Owner, a.Node}, a.Asker)
		a.Items, a.Known = append(a.Items, items...), a.Known || known
		return processor.Continue, err
	}
	nodes, err := c.dir.nodes(ctx, a.Owner)
	if err != nil {
		return processor.Continue, err
	}
	for _, n := range nodes {
		see, err := c.visible(ctx, n, a.Asker)
		if err != nil {
			return processor.Continue, err
		}
		if see {
			a.Items = append(a.Items, disco.Item{JID: a.Owner, Node: n.Node, Name: n.Settings.Title})
		}
	}
	return processor.Continue, nil
}

// itemsOf lists the newest items of a node by their ids, the newest last.
func (c *component) itemsOf(ctx context.Context, at Address, who jid.JID) (out []disco.Item, known bool, err error) {
	n, err := c.dir.node(ctx, at)
	if err != nil || n == nil {
		return nil, false, err
	}
	if may, err := allowed(c.mayRead(ctx, n, who)); err != nil || !may {
		return nil, false, err
	}
	ids, err := c.store.ids(ctx, n, c.cfg.Page)
	for _, id := range ids {
		out = append(out, disco.Item{JID: at.Service, Name: id})
	}
	return out, true, err
}

// serviceInfo is disco#info of the common service and its nodes.
func (c *component) serviceInfo(ctx context.Context, st *stanza.Stanza, query *stanza.Element) (*stanza.Element, error) {
	if st.Type == stanza.TypeSet {
		return nil, stanza.NewError(stanza.BadRequest, "service discovery is of type get")
	}
	node := query.Get("node")
	f := &disco.Facts{}
	if node == "" {
		f.AddIdentity(disco.Identity{Category: "pubsub", Type: "service", Name: "Publish-Subscribe"})
		f.AddFeature(stanza.NSDiscoInfo, stanza.NSDiscoItem, nsPing)
		f.AddFeature(features("access-open")...)
		_, err := processor.Fire(ctx, c.reg, Describing, &Description{Facts: f, Service: st.To})
		return f.Element(""), err
	}
	known, err := c.describe(ctx, f, Address{st.To, node}, st.From)
	if err == nil && !known {
		err = errNoNode()
	}
	return f.Element(node), err
}

// serviceItems is disco#items of the common service, by pages, and of its nodes.
func (c *component) serviceItems(ctx context.Context, st *stanza.Stanza, query *stanza.Element) (*stanza.Element, error) {
	if st.Type == stanza.TypeSet {
		return nil, stanza.NewError(stanza.BadRequest, "service discovery is of type get")
	}
	node := query.Get("node")
	out := stanza.El(stanza.NSDiscoItem, "query").WithOpt("node", node)
	if node != "" {
		items, known, err := c.itemsOf(ctx, Address{st.To, node}, st.From)
		if err == nil && !known {
			err = errNoNode()
		}
		for _, i := range items {
			out.Add(stanza.El(stanza.NSDiscoItem, "item").With("jid", i.JID.String()).With("name", i.Name))
		}
		return out, err
	}
	q, err := rsm.Parse(query)
	if err != nil {
		return nil, err
	}
	found, err := c.store.list(ctx, st.To, q, q.Limit(c.cfg.Page))
	if err != nil {
		return nil, err
	}
	p := rsm.Page{Index: -1, Count: -1}
	for i, l := range found {
		if i == 0 {
			p.First = l.name
		}
		p.Last = l.name
		see, err := c.listedTo(ctx, Address{st.To, l.name}, l.settings.Access, st.From)
		if err != nil {
			return nil, err
		}
		if see {
			out.Add(stanza.El(stanza.NSDiscoItem, "item").With("jid", st.To.String()).With("node", l.name).WithOpt("name", l.settings.Title))
		}
	}
	if q != nil || len(found) == c.cfg.Page {
		out.Add(p.Element())
	}
	return out, nil
}

// listedTo reports whether a node of a common service is shown to somebody.
func (c *component) listedTo(ctx context.Context, at Address, access Access, who jid.JID) (bool, error) {
	if access == Open || access == Authorize {
		return true, nil
	}
	n, err := c.dir.node(ctx, at)
	if err != nil || n == nil {
		return false, err
	}
	return c.visible(ctx, n, who)
}
