package register

import (
	"context"
	"net/netip"
	"unicode/utf8"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/accounts"
	"parley/plugins/invitations"
	"parley/stream"
)

// signup is the streamer's component.
type signup struct {
	still
	env      plugins.Env
	cfg      SignupConfig
	accounts *accounts.Accounts
	limit    *limiter // nil: nobody is slowed down
	reserved map[string]bool
	invited  *invited
	door     *Door
}

var _ stream.Component = (*signup)(nil)

func newSignup(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	a, err := plugins.Need[*accounts.Accounts](env, accounts.Name)
	if err != nil {
		return nil, err
	}
	t, err := plugins.Need[*invitations.Tokens](env, invitations.Name)
	if err != nil {
		return nil, err
	}
	d, err := plugins.Need[*Door](env, Name)
	if err != nil {
		return nil, err
	}
	s := &signup{env: env, cfg: *signupDefaults(), accounts: a, reserved: map[string]bool{}, invited: newInvited(env.Clock, t), door: d}
	if err := c.Decode(&s.cfg); err != nil {
		return nil, err
	}
	if s.cfg.PerHour > 0 {
		s.limit = newLimiter(s.cfg.PerHour, env.Clock)
	}
	for _, n := range s.cfg.Forbidden {
		s.reserved[accounts.Skeleton(n)] = true
	}
	return s, nil
}

// orderRegister puts the feature behind those of SASL.
const orderRegister = 45

// Register implements stream.Component.
func (s *signup) Register(r *stream.Registrar) {
	for _, feature := range []string{nsFeature, nsToken} { // XEP-0077 §8, XEP-0445 §3
		r.StreamFeature(stream.Feature{In: stream.Secured, Order: orderRegister, Advertise: func(c *stream.Conn) *stanza.Element {
			if !s.cfg.of(c.Domain()).Enabled {
				return nil
			}
			return stanza.El(feature, "register")
		}})
	}
	r.PreAuthIQ(stanza.Name{Space: ns, Local: "query"}, s.request)
	r.PreAuthIQ(stanza.Name{Space: invitations.NS, Local: "preauth"}, s.preauth)
	s.invited.tokens.Opening(func(domain string) bool { return s.cfg.of(domain).Enabled })
}

// request is XEP-0077 §3.1.
func (s *signup) request(ctx context.Context, c *stream.Conn, st *stanza.Stanza) (*stanza.Element, error) {
	if !s.offered(c, st) {
		return nil, stanza.NewError(stanza.ServiceUnavailable, "")
	}
	if !s.cfg.of(c.Domain()).Open && !s.invited.has(c.ID()) {
		return nil, stanza.NewError(stanza.NotAllowed, "an invitation is needed to make an account here")
	}
	if st.Type == "get" {
		return s.fields(c, st.ID), nil
	}
	q := st.Payload()
	if q.Child(ns, "remove") != nil { // §3.2: there is nobody yet
		return nil, stanza.NewError(stanza.UnexpectedRequest, "log in first")
	}
	f, err := fill(q)
	if err != nil {
		return nil, err
	}
	return nil, s.create(ctx, c, f)
}

// offered reports whether a request is for the domain of its stream, and that one takes
// registrations (XEP-0077 §3.1.1).
func (s *signup) offered(c *stream.Conn, st *stanza.Stanza) bool {
	return s.cfg.of(c.Domain()).Enabled && (st.To.IsZero() || st.To.IsDomain() && st.To.Domain() == c.Domain())
}

// create makes the account, if name, password, address and what was asked besides are
// good for one.
func (s *signup) create(ctx context.Context, c *stream.Conn, f filled) error {
	if f.name == "" || f.password == "" { // §3.1
		return stanza.NewError(stanza.NotAcceptable, "a name and a password are required")
	}
	at, err := jid.New(f.name, c.Domain(), "")
	if err != nil {
		return stanza.NewError(stanza.NotAcceptable, "the name is not acceptable")
	}
	if err := s.acceptable(at, f.password); err != nil {
		return err
	}
	invitation, err := s.invited.fits(ctx, c.ID(), at)
	if err != nil {
		return wire(err)
	}
	// What is well-formed counts, taken names and wrong answers as well: nobody
	// finds out by the thousand which exist, or what the answer is.
	if err := s.allow(c); err != nil {
		return err
	}
	by := s.challenger(c)
	if by != nil {
		if err := by.Passed(ctx, applicant(c), f.form); err != nil {
			return err
		}
	}
	if err := s.unlike(ctx, at); err != nil {
		return err
	}
	if err := s.invited.using(ctx, invitation, func() error { return s.accounts.Create(ctx, at, f.password) }); err != nil {
		return wire(err)
	}
	s.invited.known.Drop(c.ID())
	if by != nil {
		by.Made(applicant(c))
	}
	s.env.Log.Info("registered", "account", at.String(), "remote", c.Transport().RemoteAddr().String(), "invited", invitation != nil)
	if invitation != nil {
		if err := s.invited.tokens.Joined(ctx, *invitation, at); err != nil { // the account is there: they ask each other
			s.env.Log.Error("inviter and invited are no contacts", "account", at.String(), "err", err)
		}
	}
	return nil
}

// allow slows down whoever tries too often from one address.
func (s *signup) allow(c *stream.Conn) error {
	remote := c.Transport().RemoteAddr().String()
	if ap, err := netip.ParseAddrPort(remote); err == nil && !s.limit.allow(ap.Addr()) {
		s.env.Log.Warn("registration throttled", "remote", remote)
		return stanza.NewError(stanza.ResourceConstraint, "too many registrations from your address; try again later")
	}
	return nil
}

// acceptable judges name and password by themselves.
func (s *signup) acceptable(at jid.JID, password string) error {
	name := at.Local()
	switch {
	case utf8.RuneCountInString(name) > s.cfg.MaxName:
		return stanza.NewError(stanza.NotAcceptable, "the name is too long")
	case s.reserved[accounts.Skeleton(name)]:
		return stanza.NewError(stanza.NotAcceptable, "the name is reserved")
	case mixed(name):
		return stanza.NewError(stanza.NotAcceptable, "the name mixes letters of different scripts")
	case utf8.RuneCountInString(password) < s.cfg.of(at.Domain()).MinPassword:
		return stanza.NewError(stanza.NotAcceptable, "the password is too short")
	}
	return nil
}

// unlike refuses names that look like an existing one.
func (s *signup) unlike(ctx context.Context, at jid.JID) error {
	if !s.cfg.Lookalikes {
		return nil
	}
	taken, err := s.accounts.LooksTaken(ctx, at)
	if err != nil {
		return wire(err)
	}
	if taken {
		return stanza.NewError(stanza.Conflict, "the name looks like one that is taken")
	}
	return nil
}
