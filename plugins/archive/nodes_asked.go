package archive

import (
	"context"

	"parley/parser/stanza"
	"parley/processor"
)

// NodeAsked fires when an account is asked for the archive of one of its nodes
// (XEP-0313 §6.1.3, XEP-0442): a hook that has them answers, and stops. Who may ask
// is for it to say.
var NodeAsked = processor.NewHook[*NodeQuery]("archive-node-asked")

// NodeQuery is the event of NodeAsked.
type NodeQuery struct {
	*processor.IQ
	Answer *stanza.Element // for the hook that stops
}

// nodeAsked lets others answer a query that names a node; false: it names none.
func (p *part) nodeAsked(ctx context.Context, q *processor.IQ) (answer *stanza.Element, named bool, err error) {
	if !q.Query.Has("node") {
		return nil, false, nil
	}
	ev := &NodeQuery{IQ: q}
	switch v, err := processor.Fire(ctx, p.reg, NodeAsked, ev); {
	case err != nil:
		return nil, true, err
	case v == processor.Stop:
		return ev.Answer, true, nil
	case !q.Own():
		return nil, true, stanza.NewError(stanza.Forbidden, "")
	}
	return nil, true, stanza.NewError(stanza.ItemNotFound, "there are no nodes here")
}
