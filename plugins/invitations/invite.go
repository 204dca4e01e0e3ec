package invitations

import (
	"context"
	"errors"
	"slices"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/plugins/commands"
)

// Nodes of the commands (XEP-0401 §3), and the FORM_TYPE of what they result in.
const (
	nodeInvite  = "urn:xmpp:invite#invite"
	nodeAccount = "urn:xmpp:invite#create-account"
	nodeRevoke  = "urn:parley:invitations#revoke"
	formResult  = "urn:xmpp:invite#invitation"
)

// inviteCommand is XEP-0401 §5.1: at once, without a question.
func (i *inviter) inviteCommand() *commands.Command {
	return &commands.Command{Node: nodeInvite, Name: "Invite a contact", Run: func(ctx context.Context, e *commands.Execution) (*commands.Outcome, error) {
		return i.issued(ctx, e, Invitation{Inviter: e.Account(), Account: e.Domain, Opens: i.cfg.Register && i.tokens.opening(e.Domain.Domain())})
	}}
}

// accountCommand is XEP-0401 §5.4. Its forms have no FORM_TYPE.
func (i *inviter) accountCommand() *commands.Command {
	return &commands.Command{
		Node: nodeAccount, Name: "Create an account",
		Steps: []commands.Step{{Form: func(context.Context, *commands.Execution) (*form.Form, error) {
			f := &form.Form{Instructions: "Without a name, whoever is invited chooses one."}
			return f.Add(form.TextSingle, "username", "Username").Add(form.Boolean, "roster-subscription", "Make us contacts", form.Flag(false)), nil
		}}},
		Run: func(ctx context.Context, e *commands.Execution) (*commands.Outcome, error) {
			one := Invitation{Account: e.Domain, Opens: true}
			if name := e.Last().Value("username"); name != "" {
				j, err := jid.New(name, e.Domain.Domain(), "")
				if err != nil {
					return nil, stanza.NewError(stanza.NotAcceptable, "username: not the name of an account")
				}
				taken, err := i.tokens.Reserved(ctx, j, "")
				if err != nil {
					return nil, err
				}
				if taken {
					return nil, stanza.NewError(stanza.Conflict, "somebody else is invited to that name")
				}
				one.Account = j
			}
			if v := e.Last().Value("roster-subscription"); v != "" {
				on, ok := form.ParseFlag(v)
				if !ok {
					return nil, stanza.NewError(stanza.NotAcceptable, "roster-subscription: 0 or 1")
				}
				if on {
					one.Inviter = e.Account()
				}
			}
			return i.issued(ctx, e, one)
		},
	}
}

// issued makes an invitation and shows it.
func (i *inviter) issued(ctx context.Context, e *commands.Execution, one Invitation) (*commands.Outcome, error) {
	is, err := i.roles.Administers(ctx, e.Account(), e.Domain)
	if err != nil {
		return nil, err
	}
	most := i.cfg.PerAccount
	if is {
		most = -1
	}
	one.Expires = i.env.Clock.Now().Add(i.cfg.TTL).Truncate(time.Second)
	token, err := i.tokens.issue(ctx, one, most)
	if errors.Is(err, ErrMany) {
		return nil, stanza.NewError(stanza.ResourceConstraint, "too many of your invitations are open; revoke one, or wait")
	}
	if err != nil {
		return nil, err
	}
	f := &form.Form{Kind: form.Result, Type: formResult}
	f.Add(form.TextSingle, "uri", "Invitation", one.URI(token))
	if at := i.cfg.landing(token); at != "" {
		f.Add(form.TextSingle, "landing-url", "Page", at)
	}
	f.Add(form.TextSingle, "expire", "Good until", one.Expires.UTC().Format(time.RFC3339)) // XEP-0082 §3.2
	return &commands.Outcome{Payload: []*stanza.Element{f.Element()}}, nil
}

// URI is what an invited person's client opens (XEP-0401 §5.1 and §5.4, XEP-0445 §2).
// An account for somebody who becomes a contact is made by its registration.
func (i *Invitation) URI(token string) string {
	if i.Inviter.IsZero() || i.Account.Local() != "" {
		return "xmpp:" + escape(i.Account) + "?register;preauth=" + token
	}
	uri := "xmpp:" + escape(i.Inviter) + "?roster;preauth=" + token
	if i.Opens {
		uri += ";ibr=y"
	}
	return uri
}

// revokeCommand shows a person's open invitations and takes back some.
func (i *inviter) revokeCommand() *commands.Command {
	return &commands.Command{
		Node: nodeRevoke, Name: "Revoke invitations", FormType: nodeRevoke,
		Steps: []commands.Step{{Form: func(ctx context.Context, e *commands.Execution) (*form.Form, error) {
			list, err := i.tokens.store.of(ctx, e.Account(), i.env.Clock.Now())
			if err != nil {
				return nil, err
			}
			f := form.Field{Var: "invitations", Type: form.ListMulti, Label: "Those that are open"}
			for _, one := range list {
				f.Options = append(f.Options, form.Option{Value: one.ID, Label: one.Account.String() + ", until " + one.Expires.Format(time.RFC3339)})
			}
			return &form.Form{Fields: []form.Field{f}}, nil
		}}},
		Run: func(ctx context.Context, e *commands.Execution) (*commands.Outcome, error) {
			f, ok := e.Last().Field("invitations")
			if !ok {
				return nil, nil
			}
			for _, id := range slices.Compact(f.Values) {
				ok, err := i.tokens.store.revoke(ctx, id, e.Account())
				if err != nil {
					return nil, err
				}
				if !ok {
					return nil, stanza.NewError(stanza.ItemNotFound, "there is no such open invitation of yours")
				}
			}
			return nil, nil
		},
	}
}
