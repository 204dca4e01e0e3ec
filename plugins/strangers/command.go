package strangers

import (
	"context"

	"parley/parser/stanza/form"
	"parley/plugins/commands"
	"parley/processor"
)

// NS is the command's node, at the account's domain, and its form's FORM_TYPE.
const NS = "urn:parley:strangers:0"

// offer offers the command to accounts of the domain.
func (g *guard) offer(_ context.Context, o *commands.Offer) (processor.Verdict, error) {
	o.Add(o.Account().Domain() == o.Domain.Domain(), g.command())
	return processor.Continue, nil
}

// asServer is what Default is called in the form: an empty value would be none.
const asServer Policy = "default"

// table are the fields: "default" is what the server has.
func (g *guard) table() form.Table[wishes] {
	field := func(w what, label string, at func(*wishes) *Policy) form.Binding[wishes] {
		return form.Choice(string(w), label, at,
			form.Option{Value: string(asServer), Label: "As the server has it: " + string(g.cfg.rule(w).Policy)},
			form.Option{Value: string(Allow), Label: "Take them"},
			form.Option{Value: string(Limit), Label: "Take a few in an hour"},
			form.Option{Value: string(Refuse), Label: "Refuse them"})
	}
	return form.Table[wishes]{
		field(messages, "Messages", func(w *wishes) *Policy { return &w.messages }),
		field(subscriptions, "Requests to be contacts", func(w *wishes) *Policy { return &w.subscriptions }),
		field(invitations, "Invitations to rooms", func(w *wishes) *Policy { return &w.invitations }),
	}
}

// each translates the names that the form has for policies.
func (w wishes) each(from, to Policy) wishes {
	for _, p := range []*Policy{&w.messages, &w.subscriptions, &w.invitations} {
		if *p == from {
			*p = to
		}
	}
	return w
}

// command shows an account's wishes and takes others.
func (g *guard) command() *commands.Command {
	return &commands.Command{
		Node: NS, Name: "Choose what strangers may send you", FormType: NS,
		Steps: []commands.Step{{Form: func(ctx context.Context, e *commands.Execution) (*form.Form, error) {
			p, err := g.people.of(ctx, e.Account())
			if err != nil {
				return nil, err
			}
			shown := p.wishes.each(Default, asServer)
			f := g.table().Form(form.Empty, NS, &shown)
			f.Instructions = "Strangers are those who are not among your contacts and to whom you have not written."
			return f, nil
		}}},
		Run: func(ctx context.Context, e *commands.Execution) (*commands.Outcome, error) {
			p, err := g.people.of(ctx, e.Account())
			if err != nil {
				return nil, err
			}
			w := p.wishes.each(Default, asServer)
			if err := g.table().Apply(&w, e.Last()); err != nil {
				return nil, err
			}
			return &commands.Outcome{Note: "It is so from now on."}, g.people.wish(ctx, e.Account(), w.each(asServer, Default))
		},
	}
}
