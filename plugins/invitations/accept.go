package invitations

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins/roster"
	"parley/processor"
)

// NS is the namespace of XEP-0379 §3.4 and XEP-0445 §4.
const NS = "urn:xmpp:pars:0"

// incoming is XEP-0379 §3.5, done by the server: a request with a token of the
// account's is granted, and the account asks for the same. Without one it is a request
// like any other, for the account to decide.
func (i *inviter) incoming(ctx context.Context, f *processor.Flow) (processor.Verdict, error) {
	if f.Kind != stanza.Presence || f.Type != "subscribe" || !f.Has(NS, "preauth") {
		return processor.Continue, nil
	}
	one, err := i.tokens.Look(ctx, f.Child(NS, "preauth").Get("token"))
	if err == nil && one.Inviter == f.Account && one.Account.IsDomain() {
		err = i.tokens.Claim(ctx, one.ID)
	} else if err == nil {
		err = ErrUnknown
	}
	switch {
	case errors.Is(err, ErrUnknown):
		return processor.Continue, nil
	case err != nil:
		return processor.Continue, err
	}
	owner, contact := f.Account, f.From.Bare()
	if err := i.grant(ctx, owner, contact); err != nil { // the request finds that it is
		return processor.Continue, err
	}
	return processor.Continue, i.ask(ctx, owner, contact)
}

// grant lets an account approve of a contact's request, which is to come (RFC 6121
// §3.4) or has come.
func (i *inviter) grant(ctx context.Context, owner, contact jid.JID) error {
	return i.act(ctx, roster.Subscribed, owner, contact)
}

// ask lets an account request the contact's presence.
func (i *inviter) ask(ctx context.Context, owner, contact jid.JID) error {
	return i.act(ctx, roster.Subscribe, owner, contact)
}

func (i *inviter) act(ctx context.Context, a roster.Action, owner, contact jid.JID) error {
	if owner == contact {
		return nil
	}
	o, err := i.rosters.Apply(ctx, i.reg, roster.Event{Direction: roster.Outbound, Action: a, Owner: owner, Contact: contact}, nil)
	if err == nil && o.Pass {
		i.reg.Submit(ctx, stanza.Make(stanza.Presence, a.String(), owner, contact, rand.Text()))
	}
	return err
}

// befriend makes two accounts of this server contacts of each other.
func (t *Tokens) befriend(ctx context.Context, a, b jid.JID) error {
	i := t.inviter.Load()
	if i == nil {
		return errors.New("no processor runs here")
	}
	for _, step := range []func() error{
		func() error { return i.grant(ctx, a, b) },
		func() error { return i.grant(ctx, b, a) },
		func() error { return i.ask(ctx, a, b) },
		func() error { return i.ask(ctx, b, a) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("contacts by invitation: %w", err)
		}
	}
	return nil
}

// callBefriend is befriend, asked by a front.
const callBefriend = "invitations.befriend"

func (t *Tokens) answerBefriend(ctx context.Context, _ string, payload []byte) ([]byte, error) {
	first, second, _ := strings.Cut(string(payload), " ")
	a, err := jid.Parse(first)
	if err != nil {
		return nil, fmt.Errorf("inviter: %w", err)
	}
	b, err := jid.Parse(second)
	if err != nil {
		return nil, fmt.Errorf("account: %w", err)
	}
	return nil, t.befriend(ctx, a, b)
}

// escape is an address in a URI (RFC 5122 §2.2).
func escape(j jid.JID) string {
	if j.Local() == "" {
		return j.Domain()
	}
	return url.PathEscape(j.Local()) + "@" + j.Domain()
}
