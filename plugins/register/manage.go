package register

import (
	"context"
	"net/netip"
	"unicode/utf8"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/accounts"
	"parley/processor"
	"parley/router/sessions"
)

// manage is the processor's component.
type manage struct {
	still
	cfg      ManageConfig
	accounts *accounts.Accounts
}

var _ processor.Component = (*manage)(nil)

func newManage(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	a, err := plugins.Need[*accounts.Accounts](env, accounts.Name)
	if err != nil {
		return nil, err
	}
	m := &manage{cfg: *manageDefaults(), accounts: a}
	if err := c.Decode(&m.cfg); err != nil {
		return nil, err
	}
	return m, nil
}

// Register implements processor.Component.
func (m *manage) Register(r *processor.Registrar) {
	r.IQ(ns, "query", processor.Host|processor.Self, m.request)
	r.Feature(ns)
	processor.On(r, processor.Outgoing, processor.Normal, m.remove)
}

// request answers somebody who has logged in: what is registered, and a new
// password (XEP-0077 §3.1, §3.3). Leaving is dealt with by remove.
func (m *manage) request(ctx context.Context, q *processor.IQ) (*stanza.Element, error) {
	if q.Session == nil || q.Session.Kind != sessions.Client {
		return nil, stanza.NewError(stanza.NotAllowed, "accounts here are for people of this server")
	}
	own := q.Session.JID.Bare()
	if q.Owner != own && q.Owner != own.Host() {
		return nil, stanza.NewError(stanza.NotAllowed, "")
	}
	if !q.Set() {
		return stanza.El(ns, "query").Add(
			stanza.El(ns, "registered"),
			stanza.El(ns, "username").AddText(own.Local()),
			stanza.El(ns, "password"),
		), nil
	}
	return nil, m.password(ctx, q, own)
}

// password is XEP-0077 §3.3.
func (m *manage) password(ctx context.Context, q *processor.IQ, own jid.JID) error {
	rules := m.cfg.of(own.Domain())
	name, named := text(q.Query, "username")
	password, given := text(q.Query, "password")
	switch {
	case !named || !given || password == "": // an empty one changes nothing
		return stanza.NewError(stanza.BadRequest, "name and new password are required")
	case !names(name, own):
		return stanza.NewError(stanza.NotAllowed, "not your account")
	case !rules.Password:
		return stanza.NewError(stanza.NotAllowed, "passwords cannot be changed here")
	case !private(q.Session):
		return stanza.NewError(stanza.NotAuthorized, "the connection is not encrypted")
	case utf8.RuneCountInString(password) < rules.MinPassword:
		return stanza.NewError(stanza.NotAcceptable, "the password is too short")
	}
	return wire(m.accounts.SetPassword(ctx, own, password))
}

// names reports whether a user name means the account: its localpart, or its
// whole address, as some clients send it.
func names(name string, own jid.JID) bool {
	if j, err := jid.New(name, own.Domain(), ""); err == nil {
		return j == own
	}
	j, err := jid.Parse(name)
	return err == nil && j == own
}

// private reports whether a password may be sent over the session's stream.
func private(e *sessions.Entry) bool {
	if e.Secure {
		return true
	}
	ap, err := netip.ParseAddrPort(e.Remote)
	return err == nil && ap.Addr().Unmap().IsLoopback()
}

// remove is XEP-0077 §3.2. It is no IQ handler, because the answer has to be
// on its way before the sessions end.
func (m *manage) remove(ctx context.Context, f *processor.Flow) (processor.Verdict, error) {
	if f.Kind != stanza.IQ || f.Type != "set" || !f.Has(ns, "query") || f.Session.Kind != sessions.Client {
		return processor.Continue, nil
	}
	own := f.Session.JID.Bare()
	if !f.To.IsZero() && f.To != own && f.To != own.Host() {
		return processor.Continue, nil
	}
	q := f.Payload()
	switch {
	case q.Child(ns, "remove") == nil:
		return processor.Continue, nil
	case q.Count() != 1:
		return processor.Stop, stanza.NewError(stanza.BadRequest, "")
	case !m.cfg.of(own.Domain()).Remove:
		return processor.Stop, stanza.NewError(stanza.NotAllowed, "accounts cannot be removed here")
	}
	return processor.Stop, wire(m.accounts.DeleteOwn(ctx, f))
}
