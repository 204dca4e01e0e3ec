package admincommands

import (
	"context"
	"crypto/rand"
	"strings"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/plugins/commands"
	"parley/plugins/presence"
	"parley/processor"
	"parley/router/sessions"
)

// Texts that are kept for people who come later.
const (
	motd    = "motd"    // everybody once, at the next login (XEP-0133 §4.24)
	welcome = "welcome" // those who are new (XEP-0133 §4.27)
)

// maxText is how long a text may be, in bytes.
const maxText = 8 << 10

// text is one of them; version is when it was set, in unix microseconds.
type text struct {
	body    string
	version int64
}

func motdField() []form.Field {
	return []form.Field{required(form.TextMulti, motd, "Message of the day")}
}

func welcomeField() []form.Field {
	return []form.Field{required(form.TextMulti, welcome, "Welcome message")}
}

// textForm shows the text that there is (XEP-0133 §4.25).
func (a *component) textForm(kind string, fields func() []form.Field) func(context.Context, *commands.Execution) (*form.Form, error) {
	return func(ctx context.Context, e *commands.Execution) (*form.Form, error) {
		p, err := a.policies.of(ctx, e.Domain)
		if err != nil {
			return nil, err
		}
		f := &form.Form{Fields: fields()}
		if t := p.texts[kind]; t.body != "" {
			f.Fields[0].Values = strings.Split(t.body, "\n")
		}
		return f, nil
	}
}

// written is a text of several lines that somebody has sent.
func written(f *form.Form, name string) (string, error) {
	var body string
	if x, ok := f.Field(name); ok {
		body = strings.TrimSpace(strings.Join(x.Values, "\n"))
	}
	switch {
	case body == "":
		return "", stanza.NewError(stanza.NotAcceptable, name+": what is it?")
	case len(body) > maxText:
		return "", stanza.NewError(stanza.NotAcceptable, name+": too long")
	}
	return body, nil
}

// setMotd is XEP-0133 §4.24, where everybody gets it anew and those who are online at
// once, and §4.25, where who has had it does not get it again.
func (a *component) setMotd(anew bool) func(context.Context, *commands.Execution) (*commands.Outcome, error) {
	return func(ctx context.Context, e *commands.Execution) (*commands.Outcome, error) {
		body, err := written(e.Last(), motd)
		if err != nil {
			return nil, err
		}
		defer a.changed(context.WithoutCancel(ctx), e.Domain)
		version := int64(0)
		if anew {
			version = a.env.Clock.Now().UnixMicro()
		}
		if err := a.store.setText(ctx, e.Domain, motd, text{body, version}); err != nil || !anew {
			return nil, err
		}
		return nil, a.send(ctx, announcement{domain: e.Domain, audience: toOnline, kind: motd, body: body, version: version})
	}
}

// setWelcome is XEP-0133 §4.27: for accounts that are made from now on.
func (a *component) setWelcome(ctx context.Context, e *commands.Execution) (*commands.Outcome, error) {
	body, err := written(e.Last(), welcome)
	if err != nil {
		return nil, err
	}
	defer a.changed(context.WithoutCancel(ctx), e.Domain)
	return nil, a.store.setText(ctx, e.Domain, welcome, text{body, a.env.Clock.Now().UnixMicro()})
}

// deleteText is XEP-0133 §4.26 and §4.28.
func (a *component) deleteText(kind string) func(context.Context, *commands.Execution) (*commands.Outcome, error) {
	return func(ctx context.Context, e *commands.Execution) (*commands.Outcome, error) {
		defer a.changed(context.WithoutCancel(ctx), e.Domain)
		return nil, a.store.deleteText(ctx, e.Domain, kind)
	}
}

// arrived gives somebody who has come what they have not had: to the account, so that
// it is kept like every message, and once, however many devices come at one time.
func (a *component) arrived(ctx context.Context, t *presence.Transition) (processor.Verdict, error) {
	if !t.Arrived() || t.Session.Kind != sessions.Client || t.Session.Priority < 0 {
		return processor.Continue, nil
	}
	who := t.Session.JID.Bare()
	p, err := a.policies.of(ctx, who.Host())
	if err != nil {
		return processor.Continue, err
	}
	for _, kind := range []string{welcome, motd} {
		if text := p.texts[kind]; text.body != "" {
			if err := a.tell(ctx, who, kind, text); err != nil {
				return processor.Continue, err
			}
		}
	}
	return processor.Continue, nil
}

// tell sends one text to an account that has not had it.
func (a *component) tell(ctx context.Context, who jid.JID, kind string, t text) error {
	if kind == welcome {
		acc, err := a.accounts.Show(ctx, who)
		if err != nil || acc.Created.UnixMicro() < t.version {
			return refused(who, err)
		}
		t.version = 1 // whoever has been welcomed is, whatever the text becomes
	}
	if first, err := a.store.claim(ctx, who, kind, t.version); err != nil || !first {
		return err
	}
	a.reg.Submit(ctx, letter(who, rand.Text(), t.body))
	return nil
}

// letter is a message of the server.
func letter(to jid.JID, id, body string) *stanza.Stanza {
	return stanza.Make(stanza.Message, "", to.Host(), to, id, stanza.El(stanza.NSClient, "body").AddText(body))
}
