package attachments

import (
	"strings"

	"parley/parser/stanza"
	"parley/plugins/pubsub"
)

// isAttached and isSummary say what a node is by its name.
func isAttached(node string) bool { return strings.HasPrefix(node, NS+"/") }
func isSummary(node string) bool  { return strings.HasPrefix(node, NSSummary+"/") }

// attached is the node of the attachments to an item (XEP-0470 §4.1.1).
func attached(at pubsub.Address, item string) pubsub.Address {
	return pubsub.Address{Service: at.Service, Node: NS + "/" + at.URI(item)}
}

// summary is the node of the summaries of a node's items (XEP-0470 §4.6).
func summary(at pubsub.Address) pubsub.Address {
	return pubsub.Address{Service: at.Service, Node: NSSummary + "/" + at.Node}
}

// target is the item that a node of attachments is for. There is one name for
// each, or people could attach the same thing twice.
func target(at pubsub.Address) (of pubsub.Address, item string, err error) {
	of, item, ok := pubsub.ParseURI(strings.TrimPrefix(at.Node, NS+"/"))
	switch {
	case !ok || item == "" || of.Service != at.Service || isAttached(of.Node) || isSummary(of.Node):
		return of, "", stanza.NewError(stanza.ItemNotFound, "there is no such item to attach something to")
	case attached(of, item).Node != at.Node:
		return of, "", stanza.NewError(stanza.ItemNotFound, "the item's attachments are at "+attached(of, item).Node)
	}
	return of, item, nil
}
