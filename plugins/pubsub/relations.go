package pubsub

import (
	"context"
	"fmt"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/storage"
)

// Node relationships (XEP-0496). A node has at most one link and one parent, of
// the same service; who sets them owns both ends, for what happens to one then
// happens to the other.
const (
	nsRelations = "urn:xmpp:pubsub-relationships:0"
	fieldLink   = "{" + nsRelations + "}link"
	fieldParent = "{" + nsRelations + "}parent"
	// maxDepth bounds the parents above a node: every request to it asks all of
	// them.
	maxDepth = 16
	// maxBranch bounds what is changed together with a node.
	maxBranch = 1000

	sqlLinking   = `SELECT name FROM pubsub_node WHERE service = $1 AND link = $2 ORDER BY name LIMIT $3`
	sqlDependent = `SELECT name FROM pubsub_node WHERE service = $1 AND link = $2 UNION SELECT name FROM pubsub_node WHERE service = $1 AND parent = $2 ORDER BY name LIMIT $3`
)

// relations are the fields of the configuration (XEP-0496 §4.2).
func relations() form.Table[Settings] {
	return form.Table[Settings]{
		Extra(fieldLink, "The node that this one belongs to, and goes with", maxName),
		Extra(fieldParent, "The node above, which says as well who may read and publish here", maxName),
	}
}

// maxName bounds names of nodes in forms; max_node_id bounds nodes.
const maxName = 3071

// Link is the node that this one goes with, or "" (XEP-0496 §4.1).
func (s *Settings) Link() string { return s.first(fieldLink) }

// Parent is the node above, or "" (XEP-0496 §4.1).
func (s *Settings) Parent() string { return s.first(fieldParent) }

// SetLink sets what Link returns.
func (s *Settings) SetLink(node string) { s.setFirst(fieldLink, node) }

// SetParent sets what Parent returns.
func (s *Settings) SetParent(node string) { s.setFirst(fieldParent, node) }

func (s *Settings) first(name string) string {
	if v := s.Extra[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

func (s *Settings) setFirst(name, value string) {
	if value == "" {
		s.SetExtra(name, nil)
		return
	}
	s.SetExtra(name, []string{value})
}

// errRelation refuses a relationship (XEP-0496 §4.2).
func errRelation(text string) error { return failure(stanza.NotAllowed, "invalid-option", text) }

// relate checks what a node is going to be to others, and gives a linking node
// the parent of the linked one (XEP-0496 §4.2).
func (c *component) relate(ctx context.Context, e *Settlement) error {
	s := e.Settings
	link, parent := s.Link(), s.Parent()
	if b := e.Before; b != nil && b.Link() == link && b.Parent() == parent {
		return nil
	}
	linked, err := c.relative(ctx, e, link, e.Before == nil || e.Before.Link() != link)
	if err != nil {
		return err
	}
	if linked != nil {
		switch above := linked.Settings.Parent(); {
		case parent == "":
			parent = above
			s.SetParent(above)
		case parent != above:
			return errRelation("a node that links to another has its parent")
		}
	}
	if _, err := c.relative(ctx, e, parent, linked == nil && (e.Before == nil || e.Before.Parent() != parent)); err != nil {
		return err
	}
	return c.acyclic(ctx, e, link, parent)
}

// relative returns the node that a relationship leads to; nil: there is none.
// fresh: the relationship is, so who sets it has to own that one.
func (c *component) relative(ctx context.Context, e *Settlement, name string, fresh bool) (*Node, error) {
	if name == "" {
		return nil, nil
	}
	n, err := c.dir.node(ctx, Address{e.Service, name})
	switch {
	case err != nil:
		return nil, err
	case n == nil || fresh && !e.House && !n.Affiliation(e.By).may(mayManage):
		return nil, errRelation("who relates two nodes has to own both")
	case n.Base != "":
		return nil, errRelation("nodes of attachments and the like belong to theirs already")
	}
	return n, nil
}

// acyclic follows all relationships from the node: they must not lead back
// (XEP-0496 §4.2), nor too far.
func (c *component) acyclic(ctx context.Context, e *Settlement, from ...string) error {
	seen := map[string]bool{"": true}
	for next := from; len(next) > 0; {
		name := next[0]
		next = next[1:]
		switch {
		case name == e.Node:
			return errRelation("the relationships lead back to the node")
		case seen[name]:
			continue
		case len(seen) > 2*maxDepth:
			return errRelation(fmt.Sprintf("there may be %d nodes above one", maxDepth))
		}
		seen[name] = true
		n, err := c.dir.node(ctx, Address{e.Service, name})
		if err != nil {
			return err
		}
		if n != nil {
			next = append(next, n.Settings.Link(), n.Settings.Parent())
		}
	}
	return nil
}

// alone reports whether the node itself says everything about who may what.
func (n *Node) alone() bool { return n.Base == "" && n.Settings.Parent() == "" }

// lineage is whom to ask whether somebody may have to do with a node: itself and
// the nodes above (XEP-0496 §4.4), or its base in its place, with the publish
// model of the node. Errors: item-not-found when one of them is gone.
func (c *component) lineage(ctx context.Context, n *Node) ([]*Node, error) {
	if n.alone() {
		return []*Node{n}, nil
	}
	if n.Base != "" {
		base, err := c.dir.node(ctx, Address{n.Service, n.Base})
		if err != nil {
			return nil, err
		}
		if base == nil {
			return nil, errNoNode()
		}
		s := base.Settings.clone()
		if p := n.Settings.Publish; p != AsBase {
			s.Publish = p
		}
		n = base.withSettings(s)
	}
	out := []*Node{n}
	for parent := n.Settings.Parent(); parent != ""; parent = n.Settings.Parent() {
		var err error
		n, err = c.dir.node(ctx, Address{out[0].Service, parent})
		switch {
		case err != nil:
			return nil, err
		case n == nil || len(out) > 2*maxDepth:
			return nil, errNoNode()
		}
		out = append(out, n)
	}
	return out, nil
}

// effective is a node as it shows: with the models of its base, if it derives from
// another.
func (c *component) effective(ctx context.Context, n *Node) (*Node, error) {
	if n.Base == "" {
		return n, nil
	}
	all, err := c.lineage(ctx, n)
	if err != nil {
		return nil, err
	}
	s := n.Settings.clone()
	s.Access, s.Groups, s.Publish = all[0].Settings.Access, all[0].Settings.Groups, all[0].Settings.Publish
	return n.withSettings(s), nil
}

// mayRead is mayReadHere of a node and of all above it.
func (c *component) mayRead(ctx context.Context, n *Node, who jid.JID) error {
	all, err := c.lineage(ctx, n)
	for i := 0; err == nil && i < len(all); i++ {
		err = c.mayReadHere(ctx, all[i], who)
	}
	return err
}

// mayReadAbove is mayRead without the node itself.
func (c *component) mayReadAbove(ctx context.Context, n *Node, who jid.JID) error {
	all, err := c.lineage(ctx, n)
	for i := 1; err == nil && i < len(all); i++ {
		err = c.mayReadHere(ctx, all[i], who)
	}
	return err
}

// mayPublish is mayPublishHere of a node and of all above it; own is what the
// node says.
func (c *component) mayPublish(ctx context.Context, n *Node, who jid.JID) (own bool, err error) {
	all, err := c.lineage(ctx, n)
	for i := 0; err == nil && i < len(all); i++ {
		var mine bool
		if mine, err = c.mayPublishHere(ctx, all[i], who); i == 0 {
			own = mine
		}
	}
	return own, err
}

// visible is visibleHere of a node and of all above it.
func (c *component) visible(ctx context.Context, n *Node, who jid.JID) (bool, error) {
	all, err := c.lineage(ctx, n)
	if err != nil {
		return allowed(err)
	}
	for _, m := range all {
		if ok, err := c.visibleHere(ctx, m, who); err != nil || !ok {
			return false, err
		}
	}
	return true, nil
}

// followers are the nodes that get another parent with a node that they link to,
// at any distance (XEP-0496 §4.3).
func (c *component) followers(ctx context.Context, n *Node) (out []*Node, err error) {
	for from := []string{n.Node}; len(from) > 0; from = from[1:] {
		linking, err := c.related(ctx, n, sqlLinking, from[0])
		if err != nil {
			return nil, err
		}
		for _, m := range linking {
			if m.Settings.Parent() == n.Settings.Parent() {
				continue
			}
			if len(out) >= maxBranch {
				return nil, errRelation(fmt.Sprintf("more than %d nodes would change", maxBranch))
			}
			s := m.Settings.clone()
			s.SetParent(n.Settings.Parent())
			out, from = append(out, m.withSettings(s)), append(from, m.Node)
		}
	}
	return out, nil
}

// branch are the nodes that go with a node, at any distance (XEP-0496 §4.3,
// §4.4). Those that derive from it are not among them.
func (c *component) branch(ctx context.Context, n *Node) (out []*Node, err error) {
	seen := map[string]bool{n.Node: true}
	for from := []string{n.Node}; len(from) > 0; from = from[1:] {
		going, err := c.related(ctx, n, sqlDependent, from[0])
		if err != nil {
			return nil, err
		}
		for _, m := range going {
			switch {
			case seen[m.Node]:
			case len(out) >= maxBranch:
				return nil, errRelation(fmt.Sprintf("more than %d nodes would go: delete some of those below first", maxBranch))
			default:
				seen[m.Node] = true
				out, from = append(out, m), append(from, m.Node)
			}
		}
	}
	return out, nil
}

// related reads nodes of the service of n by what they are to the one of that
// name.
func (c *component) related(ctx context.Context, n *Node, text, name string) (out []*Node, err error) {
	names, err := storage.All(ctx, c.env.DB, scanID, text, n.Service.String(), name, maxBranch+1)
	if err != nil {
		return nil, fmt.Errorf("nodes related to %s of %s: %w", name, n.Service, err)
	}
	for _, name := range names {
		m, err := c.dir.node(ctx, Address{n.Service, name})
		if err != nil {
			return nil, err
		}
		if m != nil {
			out = append(out, m)
		}
	}
	return out, nil
}

// derive makes a new node one that derives from base, if that is not nil.
func (n *Node) derive(base *Node) *Node {
	if base == nil {
		return n
	}
	n.Base, n.baseID, n.Account = base.Node, base.id, base.Account
	n.Affiliations = map[jid.JID]Affiliation{base.Account: Owner}
	for _, o := range base.with(Owner) {
		n.Affiliations[o] = Owner
	}
	return n
}
