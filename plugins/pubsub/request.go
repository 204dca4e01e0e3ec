package pubsub

import (
	"context"
	"errors"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/processor"
	"parley/router/cluster/owner"
)

// request is a request to a service.
type request struct {
	*stanza.Stanza
	service  jid.JID
	pubsub   *stanza.Element // the payload
	what     *stanza.Element // its first child, which says what is wanted
	at       Address         // the node that what names; Node "": none
	stranger bool
}

func (r *request) set() bool { return r.Type == stanza.TypeSet }

// handler answers a request.
type handler struct {
	set, owner bool // of type set; in NSOwner
	node       need
	do         func(*component, context.Context, *request, *Node) (*stanza.Element, error)
}

// need says what is to be known of a node before a handler runs.
type need uint8

const (
	anyNode  need = iota // no node, or one that may not exist
	someNode             // one that is there
	ownNode              // one that is there, whose owner asks (XEP-0060 §8)
)

// handlers are XEP-0060's use cases by the element that asks for them.
var handlers = []struct {
	local string
	handler
}{
	{"publish", handler{set: true, do: (*component).onPublish}},
	{"retract", handler{set: true, node: someNode, do: (*component).onRetract}},
	{"items", handler{node: someNode, do: (*component).onItems}},
	{"create", handler{set: true, do: (*component).onCreate}},
	{"subscribe", handler{set: true, node: someNode, do: (*component).onSubscribe}},
	{"unsubscribe", handler{set: true, node: someNode, do: (*component).onUnsubscribe}},
	{"options", handler{node: someNode, do: (*component).onOptions}},
	{"options", handler{set: true, node: someNode, do: (*component).onSetOptions}},
	{"default", handler{do: (*component).onDefaultOptions}},
	{"subscriptions", handler{do: (*component).onSubscriptions}},
	{"affiliations", handler{do: (*component).onAffiliations}},

	{"configure", handler{owner: true, node: ownNode, do: (*component).onConfigure}},
	{"configure", handler{set: true, owner: true, node: ownNode, do: (*component).onSetConfigure}},
	{"default", handler{owner: true, do: (*component).onDefault}},
	{"delete", handler{set: true, owner: true, node: ownNode, do: (*component).onDelete}},
	{"purge", handler{set: true, owner: true, node: someNode, do: (*component).onPurge}},
	{"subscriptions", handler{owner: true, node: ownNode, do: (*component).onSubscribers}},
	{"subscriptions", handler{set: true, owner: true, node: ownNode, do: (*component).onSetSubscribers}},
	{"affiliations", handler{owner: true, node: ownNode, do: (*component).onAffiliated}},
	{"affiliations", handler{set: true, owner: true, node: ownNode, do: (*component).onSetAffiliated}},
}

// account answers what an account's own service is asked (XEP-0163).
func (c *component) account(ctx context.Context, q *processor.IQ) (*stanza.Element, error) {
	return c.answer(ctx, q.Stanza, q.Owner, q.Query)
}

// addressed is who does the work of a common service: any node.
func (c *component) addressed(st *stanza.Stanza) (key string, ok bool) {
	return "", c.isService(st.To.Domain())
}

// serve answers what a common service is sent.
func (c *component) serve(ctx context.Context, st *stanza.Stanza, _ *owner.Hold) (*stanza.Element, error) {
	switch {
	case st.Kind == stanza.Message && st.To.IsDomain():
		return nil, c.message(ctx, st, st.To)
	case st.Kind == stanza.Presence:
		return nil, nil
	case st.Type != stanza.TypeGet && st.Type != stanza.TypeSet:
		return nil, nil
	}
	query := st.Payload()
	if query == nil || !st.To.IsDomain() {
		return nil, stanza.NewError(stanza.ServiceUnavailable, "")
	}
	switch query.Name {
	case stanza.Name{Space: NS, Local: "pubsub"}, stanza.Name{Space: NSOwner, Local: "pubsub"}:
		return c.answer(ctx, st, st.To, query)
	case stanza.Name{Space: stanza.NSDiscoInfo, Local: "query"}:
		return c.serviceInfo(ctx, st, query)
	case stanza.Name{Space: stanza.NSDiscoItem, Local: "query"}:
		return c.serviceItems(ctx, st, query)
	case stanza.Name{Space: nsPing, Local: "ping"}:
		return nil, nil
	}
	q := &ServiceQuery{Stanza: st, Query: query}
	v, err := processor.Fire(ctx, c.reg, ServiceAsked, q)
	if err == nil && v != processor.Stop {
		err = stanza.NewError(stanza.ServiceUnavailable, "")
	}
	return q.Answer, err
}

const nsPing = "urn:xmpp:ping"

// answer does what is asked.
func (c *component) answer(ctx context.Context, st *stanza.Stanza, service jid.JID, pubsub *stanza.Element) (*stanza.Element, error) {
	r := &request{Stanza: st, service: service, pubsub: pubsub, what: pubsub.First()}
	name := "none"
	if r.what != nil {
		name = r.what.Name.Local
	}
	h, known := find(r)
	if !known {
		name = "other"
	}
	result, err := c.handle(ctx, r, h, known)
	outcome := "done"
	if err != nil {
		outcome = "refused"
	}
	c.requests.WithLabelValues(name, outcome).Inc()
	if err != nil && r.stranger && hides(err) {
		err = errStranger()
	}
	return result, err
}

func find(r *request) (handler, bool) {
	if r.what == nil || r.what.Name.Space != r.pubsub.Name.Space {
		return handler{}, false
	}
	for _, h := range handlers {
		if h.local == r.what.Name.Local && h.set == r.set() && h.owner == (r.pubsub.Name.Space == NSOwner) {
			return h.handler, true
		}
	}
	return handler{}, false
}

func (c *component) handle(ctx context.Context, r *request, h handler, known bool) (*stanza.Element, error) {
	if !known {
		if r.what == nil {
			return nil, stanza.NewError(stanza.BadRequest, "nothing is asked for")
		}
		return nil, unsupported(r.what.Name.Local)
	}
	var err error
	if r.stranger, err = c.stranger(ctx, r.service, r.From); err != nil {
		return nil, err
	}
	r.at = Address{r.service, r.what.Get("node")}
	if len(r.at.Node) > int(c.cfg.NodeID) {
		return nil, errLimit("the node's name is too long (max_node_id)")
	}
	if h.node == anyNode {
		return h.do(c, ctx, r, nil)
	}
	if r.at.Node == "" {
		return nil, errNodeRequired()
	}
	n, err := c.known(ctx, r)
	if err != nil {
		return nil, err
	}
	if h.node == ownNode && !n.Affiliation(r.From).may(mayManage) {
		return nil, errForbidden()
	}
	return h.do(c, ctx, r, n)
}

// known returns the node that is asked about. Who is something to it is no
// stranger.
func (c *component) known(ctx context.Context, r *request) (*Node, error) {
	n, err := c.dir.node(ctx, r.at)
	switch {
	case err != nil:
		return nil, err
	case n != nil:
		if a := n.Affiliation(r.From); a != None && a != Outcast {
			r.stranger = false
		}
		return n, nil
	case r.stranger:
		return nil, errNoNode()
	}
	uri, err := c.store.moved(ctx, r.at)
	if err != nil {
		return nil, err
	}
	if uri != "" { // XEP-0060 §6.1.3.11
		return nil, &stanza.Error{Type: stanza.Cancel, Condition: stanza.Gone, Address: uri}
	}
	return nil, errNoNode()
}

// hides reports whether the error would tell a stranger what there is: which
// node, who may do what with it.
func hides(err error) bool {
	var se *stanza.Error
	if !errors.As(err, &se) {
		return false
	}
	switch se.Condition {
	case stanza.ItemNotFound, stanza.NotAuthorized, stanza.NotAllowed, stanza.Forbidden, stanza.Gone:
		return true
	}
	return false
}
