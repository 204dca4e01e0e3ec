package pubsub

import (
	"context"
	"errors"
	"strings"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
)

// optionFields is pubsub#subscribe_options (XEP-0060 §16.4.2). Digests and bodies
// are not made.
func optionFields() form.Table[Options] {
	shows := []form.Option{
		{Value: "away", Label: "Away"}, {Value: "chat", Label: "Free for chat"}, {Value: "dnd", Label: "Do not disturb"},
		{Value: "online", Label: "Available"}, {Value: "xa", Label: "Away for long"},
	}
	show := form.Texts("pubsub#show-values", "The presence states in which to be notified", len(shows), 16, func(o *Options) *[]string { return &o.Show })
	show.Type, show.Options = form.ListMulti, shows
	return form.Table[Options]{
		form.Bool("pubsub#deliver", "Whether to be notified", func(o *Options) *bool { return &o.Deliver }),
		show,
		{
			Field: form.Field{Var: "pubsub#expire", Type: form.TextSingle, Label: "When the subscription ends: a date and time, or presence: with the subscriber's"},
			Get: func(o *Options) []string {
				switch {
				case o.Temp:
					return []string{"presence"}
				case o.Expire.IsZero():
					return nil
				}
				return []string{o.Expire.UTC().Format(time.RFC3339)}
			},
			Set: func(o *Options, v []string) string {
				s := strings.TrimSpace(v[0])
				o.Temp, o.Expire = s == "presence", time.Time{}
				if s == "" || o.Temp {
					return ""
				}
				t, err := time.Parse(time.RFC3339, s) // XEP-0082 §3.2
				if err != nil || t.Year() > 9000 {
					return "is a date and time as in 2026-11-26T12:00:00Z, or presence"
				}
				o.Expire = t.UTC()
				return ""
			},
		},
	}
}

// options applies a submitted form; false: it was canceled. Errors: bad-request
// with invalid-options (XEP-0060 §6.3.6.2).
func (c *component) options(el *stanza.Element, o *Options) (bool, error) {
	f, err := submitted(el, FormSubscribe)
	if err != nil {
		return false, err
	}
	if f.Kind == form.Cancel {
		return false, nil
	}
	if err := optionFields().Apply(o, f); err != nil {
		var se *stanza.Error
		if errors.As(err, &se) {
			err = failure(stanza.BadRequest, "invalid-options", se.Text)
		}
		return false, err
	}
	if !o.Expire.IsZero() && !c.env.Clock.Now().Before(o.Expire) {
		return false, failure(stanza.BadRequest, "invalid-options", "pubsub#expire: is over")
	}
	return true, nil
}

// onOptions is XEP-0060 §6.3.2.
func (c *component) onOptions(ctx context.Context, r *request, n *Node) (*stanza.Element, error) {
	s, err := c.mine(ctx, r, n)
	if err != nil {
		return nil, err
	}
	x := optionFields().Form(form.Empty, FormSubscribe, &s.Options).Element()
	return stanza.El(NS, "pubsub").Add(stanza.El(NS, "options").With("node", n.Node).With("jid", s.JID.String()).Add(x)), nil
}

// onSetOptions is XEP-0060 §6.3.5.
func (c *component) onSetOptions(ctx context.Context, r *request, n *Node) (*stanza.Element, error) {
	s, err := c.mine(ctx, r, n)
	if err != nil {
		return nil, err
	}
	if ok, err := c.options(r.what, &s.Options); err != nil || !ok {
		return nil, err
	}
	if err := c.lasting(n, s.JID, &s.Options); err != nil {
		return nil, err
	}
	if err := c.store.setSubscription(ctx, n, *s, &c.cfg.Limits); err != nil {
		return nil, err
	}
	fire(ctx, c, Joined, &Joining{Node: n, Subscription: *s, By: r.From})
	return nil, nil
}

// lasting applies pubsub#tempsub, and refuses what depends on presence that
// nobody here sees (XEP-0060 §12.5).
func (c *component) lasting(n *Node, who jid.JID, o *Options) error {
	o.Temp = o.Temp || n.Settings.TempSub
	if o.Temp && !c.env.Local(who.Domain()) {
		return stanza.NewError(stanza.NotAcceptable, "subscriptions that end with presence are for accounts here")
	}
	return nil
}

// onDefaultOptions is XEP-0060 §6.4.
func (c *component) onDefaultOptions(_ context.Context, r *request, _ *Node) (*stanza.Element, error) {
	o := defaultOptions()
	x := optionFields().Form(form.Result, FormSubscribe, &o).Element()
	return stanza.El(NS, "pubsub").Add(stanza.El(NS, "default").WithOpt("node", r.at.Node).Add(x)), nil
}
