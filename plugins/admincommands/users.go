package admincommands

import (
	"context"
	"crypto/subtle"
	"errors"
	"net/netip"
	"strconv"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/plugins/accounts"
	"parley/plugins/commands"
	"parley/router/sessions"
	"parley/storage"
)

// refused says an error of the accounts in the words of XEP-0133 §5; others stay.
func refused(who jid.JID, err error) error {
	for _, row := range []struct {
		is        error
		condition stanza.Condition
		text      string
	}{
		{accounts.ErrExists, stanza.Conflict, " exists already"},
		{accounts.ErrUnknown, stanza.ItemNotFound, " has no account"},
		{accounts.ErrName, stanza.NotAcceptable, " is not the address of an account here"},
		{accounts.ErrPassword, stanza.NotAcceptable, ": the password is not acceptable"},
		{accounts.ErrBusy, stanza.ResourceConstraint, ": try again later"},
		{storage.ErrUnavailable, stanza.ResourceConstraint, ": try again later"},
	} {
		if errors.Is(err, row.is) {
			return stanza.NewError(row.condition, who.String()+row.text)
		}
	}
	return err
}

// addFields are those of XEP-0133 §4.1 that are kept.
func addFields() []form.Field {
	return append(userField(), required(form.TextPrivate, "password", "The password"), required(form.TextPrivate, "password-verify", "The password again"))
}

func passwordFields() []form.Field {
	return append(userField(), required(form.TextPrivate, "password", "The new password"))
}

// one is the account that a form names.
func (a *component) one(e *commands.Execution) (jid.JID, error) {
	list, err := a.targets(e, "accountjid", false)
	if err != nil {
		return jid.JID{}, err
	}
	return list[0], nil
}

// addUser is XEP-0133 §4.1.
func (a *component) addUser(ctx context.Context, e *commands.Execution) (*commands.Outcome, error) {
	who, err := a.one(e)
	if err != nil {
		return nil, err
	}
	password, again := e.Last().Value("password"), e.Last().Value("password-verify")
	if subtle.ConstantTimeCompare([]byte(password), []byte(again)) == 0 {
		return nil, stanza.NewError(stanza.NotAcceptable, "password-verify: not the same")
	}
	return nil, refused(who, a.accounts.Create(ctx, who, password))
}

// changePassword is XEP-0133 §4.7.
func (a *component) changePassword(ctx context.Context, e *commands.Execution) (*commands.Outcome, error) {
	who, err := a.one(e)
	if err != nil {
		return nil, err
	}
	return nil, refused(who, a.accounts.SetPassword(ctx, who, e.Last().Value("password")))
}

// each does something to every account (XEP-0133 §4.2 to §4.4). Those before one that
// fails are done.
func (a *component) each(do func(context.Context, jid.JID) error) func(context.Context, *commands.Execution) (*commands.Outcome, error) {
	return func(ctx context.Context, e *commands.Execution) (*commands.Outcome, error) {
		all, err := a.targets(e, "accountjids", false)
		if err != nil {
			return nil, err
		}
		for _, who := range all {
			if err := do(ctx, who); err != nil {
				return nil, refused(who, err)
			}
		}
		a.env.Log.Info("an administrator has run a command", "by", e.Account().String(), "accounts", len(all))
		return nil, nil
	}
}

// endSessions is XEP-0133 §4.5: a full address is one session, a bare one all of the
// account's.
func (a *component) endSessions(ctx context.Context, e *commands.Execution) (*commands.Outcome, error) {
	all, err := a.targets(e, "accountjids", true)
	if err != nil {
		return nil, err
	}
	var going []sessions.Ref
	for _, who := range all {
		for _, s := range a.env.Sessions.Account(who.Bare()) {
			if who.IsBare() || s.JID == who {
				going = append(going, s.Ref)
			}
		}
	}
	a.reg.Close(ctx, stanza.StreamPolicyViolation, going...)
	return &commands.Outcome{Note: strconv.Itoa(len(going)) + " sessions end"}, nil
}

// about runs f for every account that exists.
func (a *component) about(ctx context.Context, e *commands.Execution, name string, f func(accounts.Account) (*stanza.Element, error)) (*commands.Outcome, error) {
	all, err := a.targets(e, name, false)
	if err != nil {
		return nil, err
	}
	o := &commands.Outcome{}
	for _, who := range all {
		acc, err := a.accounts.Show(ctx, who)
		if err != nil {
			return nil, refused(who, err)
		}
		x, err := f(acc)
		if err != nil {
			return nil, err
		}
		o.Payload = append(o.Payload, x)
	}
	return o, nil
}

// showRosters is XEP-0133 §4.8.
func (a *component) showRosters(ctx context.Context, e *commands.Execution) (*commands.Outcome, error) {
	return a.about(ctx, e, "accountjids", func(acc accounts.Account) (*stanza.Element, error) {
		s, err := a.rosters.Contacts(ctx, acc.JID)
		if err != nil {
			return nil, err
		}
		q := stanza.El(stanza.NSRoster, "query")
		for _, it := range s.Items() {
			q.Add(it.Element())
		}
		return shown(field("accountjids", acc.JID.String())).Add(q), nil
	})
}

// showLogins is XEP-0133 §4.9. Who never was there has no time.
func (a *component) showLogins(ctx context.Context, e *commands.Execution) (*commands.Outcome, error) {
	return a.about(ctx, e, "accountjids", func(acc accounts.Account) (*stanza.Element, error) {
		last := field("lastlogin")
		if !acc.LastLogin.IsZero() {
			last.Values = []string{acc.LastLogin.UTC().Format(time.RFC3339)} // XEP-0082 §3.2
		}
		return shown(field("accountjids", acc.JID.String()), last), nil
	})
}

// showStats is XEP-0133 §4.10.
func (a *component) showStats(ctx context.Context, e *commands.Execution) (*commands.Outcome, error) {
	return a.about(ctx, e, "accountjid", func(acc accounts.Account) (*stanza.Element, error) {
		s, err := a.rosters.Contacts(ctx, acc.JID)
		if err != nil {
			return nil, err
		}
		addresses, online := field("ipaddresses"), field("onlineresources")
		for _, one := range acc.Sessions {
			online.Values = append(online.Values, one.JID.Resource())
			if ap, err := netip.ParseAddrPort(one.Remote); err == nil {
				addresses.Values = append(addresses.Values, ap.Addr().Unmap().String())
			}
		}
		return shown(field("accountjid", acc.JID.String()), addresses, field("rostersize", strconv.Itoa(len(s.Items()))), online), nil
	})
}
