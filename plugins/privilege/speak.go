package privilege

import (
	"context"
	"strings"

	"parley/parser/stanza"
	"parley/processor"
	"parley/router/sessions"
	"parley/stream/component"
)

func forbidden(why string) error { return stanza.NewError(stanza.Forbidden, why) }

// Namespaces of features that need not be there.
const (
	nsArchive = "urn:xmpp:mam:2"
	nsPubSub  = "http://jabber.org/protocol/pubsub"
)

// wraps reports whether a namespace is one of those that a server alone says from
// an account's own address: its clients believe it, so a component does not say it
// (CVE-2017-5589).
func wraps(ns string) bool {
	switch ns {
	case NS, stanza.NSForward, stanza.NSCarbons, nsArchive, component.NSDelegation:
		return true
	}
	return false
}

// feeds reports whether it is one of those that the account's feeds alone say, which
// have its address too (XEP-0163).
func feeds(ns string) bool {
	return ns == nsPubSub || strings.HasPrefix(ns, nsPubSub+"#")
}

// message is §5: a message in the name of an account, or of the server.
func (p *part) message(ctx context.Context, f *processor.Flow) (processor.Verdict, error) {
	if f.Kind != stanza.Message || f.Type == stanza.TypeError || !f.Has(NS, "privilege") {
		return processor.Continue, nil
	}
	if f.Session == nil || f.Session.Kind != sessions.Component {
		return processor.Continue, nil
	}
	if g := p.of(f.Session); g.Message != component.Outgoing {
		return processor.Stop, forbidden("")
	}
	inner, err := unwrap(f.Child(NS, "privilege").Child(stanza.NSForward, "forwarded"), "message")
	if err != nil {
		return processor.Stop, err
	}
	for _, ch := range inner.Children {
		if wraps(ch.Name.Space) || feeds(ch.Name.Space) {
			return processor.Stop, forbidden("forwards something itself")
		}
	}
	if inner.From.IsDomain() && p.env.Local(inner.From.Domain()) { // the server's own
		if inner.To.IsZero() {
			return processor.Stop, stanza.NewError(stanza.BadRequest, "to whom?")
		}
		p.reg.Submit(ctx, inner)
		return processor.Stop, nil
	}
	if ok, err := p.managed(ctx, inner.From); err != nil || !ok {
		return processor.Stop, orForbidden(err, "from is not the bare address of an account")
	}
	return processor.Stop, p.reg.Say(ctx, inner)
}

func orForbidden(err error, why string) error {
	if err != nil {
		return err
	}
	return forbidden(why)
}

// unwrap reads the one stanza inside, of the client namespace. What is malformed
// is a bad request, and what is of another namespace is forbidden (§6.3).
func unwrap(in *stanza.Element, kind string) (*stanza.Stanza, error) {
	bad := stanza.NewError(stanza.BadRequest, "no "+kind+" in it")
	if in == nil {
		return nil, bad
	}
	var el *stanza.Element
	for c := range in.Elements() {
		if c.Name.Space == stanza.NSDelay {
			continue
		}
		if el != nil || c.Name.Local != kind {
			return nil, bad
		}
		el = c
	}
	switch {
	case el == nil:
		return nil, bad
	case el.Name.Space != stanza.NSClient:
		return nil, forbidden("the inner stanza is not of jabber:client")
	}
	st, err := stanza.Parse(el.Bytes(""), stanza.NSClient, nil)
	if err != nil {
		return nil, stanza.NewError(stanza.BadRequest, "the inner "+kind+" is malformed")
	}
	return st, nil
}

// request is §6: a request in the name of an account.
func (p *part) request(ctx context.Context, q *processor.IQ) (*stanza.Element, error) {
	g := p.of(q.Session)
	if len(g.IQ) == 0 { // first: nobody else learns who has an account
		return nil, forbidden("")
	}
	if ok, err := p.managed(ctx, q.Owner); err != nil || !ok {
		return nil, orForbidden(err, "to is not the bare address of an account")
	}
	inner, err := unwrap(q.Query, "iq")
	if err != nil {
		return nil, err
	}
	if len(inner.Children) != 1 || inner.ID == "" {
		return nil, stanza.NewError(stanza.BadRequest, "a request has an id and exactly one payload")
	}
	switch ns := inner.Children[0].Name.Space; {
	case inner.Type != q.Type,
		!inner.From.IsZero() && inner.From != q.Owner,
		!g.IQ[ns].Allows(inner.Type),
		wraps(ns): // nobody gives on what was given to him
		return nil, forbidden("")
	case inner.To.IsFull() && inner.To.Bare() == q.Owner: // a client takes it for the server's (RFC 6121 §2.1.6)
		return nil, forbidden("not to the account's own clients")
	}
	id, ask := inner.ID, inner.Clone()
	ask.From, ask.ID = q.Owner, p.reg.AskID()
	if ask.To.IsZero() {
		ask.To = q.Owner
	}
	edits := ask.Stamp()
	if ask, err = stanza.Parse(edits.Render(nil, inner.Raw), stanza.NSClient, nil); err != nil {
		return nil, stanza.NewError(stanza.BadRequest, "")
	}
	asker := q.From.Domain()
	if !p.asking.Take(asker) {
		return nil, stanza.NewError(stanza.ResourceConstraint, "too many of your requests wait for their answers")
	}
	question := stanza.Make(stanza.IQ, q.Type, q.From, q.To, q.ID)
	late := context.WithoutCancel(ctx)
	p.reg.AskAs(ctx, ask, func(answer *stanza.Stanza, err error) {
		p.asking.Give(asker)
		if answer == nil {
			p.reg.Emit(late, question.ErrorReply(stanza.NewError(stanza.RemoteServerTimeout, "no answer")))
			p.env.Log.Debug("request in an account's name not answered", "component", question.From.String(), "account", question.To.String(), "err", err)
			return
		}
		own := answer.Clone()
		own.ID, own.To = id, question.To
		edits := own.StampForwarded()
		p.reg.Emit(late, question.Reply(stanza.El(NS, "privilege").Add(stanza.El(stanza.NSForward, "forwarded").AddRaw(edits.Render(nil, answer.Raw)))))
	})
	return nil, processor.ErrUnanswered
}
