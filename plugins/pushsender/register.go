package pushsender

import (
	"context"
	"crypto/rand"
	"slices"

	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/plugins/commands"
	"parley/plugins/push"
	"parley/processor"
)

// The commands (XEP-0050), at the account's domain.
const (
	nodeRegister = push.NSHouse + "#register"
	nodeList     = push.NSHouse + "#list"
	nodeRemove   = push.NSHouse + "#remove"
)

// Fields of their forms, and of the service's description.
const (
	fieldVAPID  = "vapid-public-key"
	fieldSecret = "secret" // of the publish-options, too
	fieldNodes  = "nodes"
)

// offer offers the commands to accounts of the domain.
func (s *service) offer(_ context.Context, o *commands.Offer) (processor.Verdict, error) {
	if len(s.kinds) > 0 {
		o.Add(o.Account().Domain() == o.Domain.Domain(), s.registering(), s.listing(), s.removing())
	}
	return processor.Continue, nil
}

// table are the fields of a registration.
func (s *service) table() form.Table[registration] {
	var kinds []form.Option
	for _, k := range s.kinds {
		kinds = append(kinds, form.Option{Value: k})
	}
	t := form.Table[registration]{
		form.Choice("kind", "Outside service", func(r *registration) *string { return &r.kind }, kinds...),
		form.Text("endpoint", "Endpoint, or device token", maxToken, func(r *registration) *string { return &r.endpoint }),
		form.Text("p256dh", "Web Push: the client's public key", 128, func(r *registration) *string { return &r.p256dh }),
		form.Text("auth", "Web Push: the client's secret", 64, func(r *registration) *string { return &r.auth }),
		form.Text("app", "APNs: the app's bundle id", 200, func(r *registration) *string { return &r.app }),
	}
	if s.cfg.Text {
		t = append(t, form.Bool("text", "Send what stands for a message's text", func(r *registration) *bool { return &r.text }))
	}
	return t
}

// registering gives a node and a secret, to be enabled by XEP-0357 §5.
func (s *service) registering() *commands.Command {
	return &commands.Command{
		Node: nodeRegister, Name: "Register a device for push notifications", FormType: push.NSHouse,
		Steps: []commands.Step{{
			Form: func(context.Context, *commands.Execution) (*form.Form, error) {
				f := s.table().Form(form.Empty, push.NSHouse, &registration{kind: s.kinds[0]})
				if s.vapid != "" { // what a client needs to get an endpoint
					f.Add(form.Fixed, fieldVAPID, "The server's key (VAPID)", s.vapid)
				}
				return f, nil
			},
		}},
		Run: s.register,
	}
}

func (s *service) register(ctx context.Context, e *commands.Execution) (*commands.Outcome, error) {
	r := registration{kind: s.kinds[0], owner: e.Account(), node: rand.Text()}
	said := *e.Last()
	said.Fields = slices.DeleteFunc(slices.Clone(said.Fields), func(f form.Field) bool { return f.Var == fieldVAPID }) // some send back what is fixed
	if err := s.table().Apply(&r, &said); err != nil {
		return nil, err
	}
	if err := s.senders[r.kind].check(&r); err != nil {
		return nil, err
	}
	at, err := s.at(e.Domain.Domain())
	if err != nil {
		return nil, err
	}
	secret := rand.Text()
	if err := s.store.register(ctx, &r, secret, s.cfg.Max); err != nil {
		return nil, err
	}
	f := &form.Form{Kind: form.Result, Type: push.NSHouse}
	f.Add(form.JIDSingle, "jid", "Push service", at.String()).Add(form.TextSingle, "node", "Node", r.node).Add(form.TextSingle, fieldSecret, "Secret", secret)
	if s.vapid != "" {
		f.Add(form.TextSingle, fieldVAPID, "The server's key (VAPID)", s.vapid)
	}
	return &commands.Outcome{Payload: []*stanza.Element{f.Element()}}, nil
}

// options are an account's registrations, for people; an address is shown by its
// host alone.
func (s *service) options(all []registration) []form.Option {
	out := []form.Option{}
	for _, r := range all {
		label := r.kind
		switch to, ok := s.senders[r.kind]; {
		case r.app != "":
			label += " " + r.app
		case ok:
			label += " " + to.host(&r)
		}
		if r.failures > 0 {
			label += " (failing)"
		}
		out = append(out, form.Option{Value: r.node, Label: label})
	}
	return out
}

// listing tells people what they have registered.
func (s *service) listing() *commands.Command {
	return &commands.Command{
		Node: nodeList, Name: "My devices with push notifications", FormType: push.NSHouse,
		Run: func(ctx context.Context, e *commands.Execution) (*commands.Outcome, error) {
			all, err := s.store.of(ctx, e.Account())
			if err != nil {
				return nil, err
			}
			f := &form.Form{Kind: form.Result, Type: push.NSHouse}
			for _, o := range s.options(all) {
				f.Add(form.TextSingle, o.Value, o.Label, o.Label)
			}
			return &commands.Outcome{Payload: []*stanza.Element{f.Element()}}, nil
		},
	}
}

// removing ends registrations of one's own. What has been enabled with them ends
// with the next notification, which is refused (XEP-0357 §7.1).
func (s *service) removing() *commands.Command {
	return &commands.Command{
		Node: nodeRemove, Name: "End push notifications of a device", FormType: push.NSHouse,
		Steps: []commands.Step{{Form: func(ctx context.Context, e *commands.Execution) (*form.Form, error) {
			all, err := s.store.of(ctx, e.Account())
			if err != nil {
				return nil, err
			}
			return &form.Form{Fields: []form.Field{{Var: fieldNodes, Type: form.ListMulti, Label: "Those to end", Options: s.options(all)}}}, nil
		}}},
		Run: func(ctx context.Context, e *commands.Execution) (*commands.Outcome, error) {
			x, ok := e.Last().Field(fieldNodes)
			if !ok || len(x.Values) == 0 {
				return nil, stanza.NewError(stanza.NotAcceptable, "none is chosen")
			}
			all, err := s.store.of(ctx, e.Account())
			if err != nil {
				return nil, err
			}
			for _, node := range x.Values {
				if !slices.ContainsFunc(all, func(r registration) bool { return r.node == node }) {
					return nil, stanza.NewError(stanza.ItemNotFound, "there is no such registration")
				}
				if err := s.store.remove(ctx, e.Account(), node); err != nil {
					return nil, err
				}
			}
			return &commands.Outcome{Note: "They end."}, nil
		},
	}
}
