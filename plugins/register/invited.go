package register

import (
	"context"
	"errors"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/invitations"
	"parley/stream"
)

// nsToken announces that tokens are taken (XEP-0445 §3).
const nsToken = "urn:xmpp:ibr-token:0"

// invited remembers which streams have shown a token, for a while. Who has shown one
// in time may register with it later (XEP-0445 §4).
type invited struct {
	tokens *invitations.Tokens
	known  *PerStream[invitations.Invitation]
}

// invitedFor is more than a stream has for its login.
const invitedFor = 10 * time.Minute

func newInvited(clock plugins.Clock, t *invitations.Tokens) *invited {
	return &invited{t, NewPerStream[invitations.Invitation](clock, invitedFor)}
}

// preauth is XEP-0445 §4. Guesses are slowed down like registrations.
func (s *signup) preauth(ctx context.Context, c *stream.Conn, st *stanza.Stanza) (*stanza.Element, error) {
	if !s.offered(c, st) {
		return nil, stanza.NewError(stanza.ServiceUnavailable, "")
	}
	if st.Type != "set" {
		return nil, stanza.NewError(stanza.BadRequest, "a token is shown with a set")
	}
	if err := s.allow(c); err != nil {
		return nil, err
	}
	one, err := s.invited.tokens.Look(ctx, st.Payload().Get("token"))
	if err == nil && (!one.Opens || one.Account.Domain() != c.Domain()) {
		err = invitations.ErrUnknown
	}
	if err != nil {
		return nil, wire(err)
	}
	s.invited.known.Put(c.ID(), one)
	return nil, nil
}

// get is the invitation that the stream has shown; nil: none, or too long ago.
func (v *invited) get(stream string) (one *invitations.Invitation) {
	v.known.Look(stream, func(i invitations.Invitation) (stays bool) {
		one = &i
		return true
	})
	return one
}

func (v *invited) has(stream string) bool { return v.get(stream) != nil }

// fits returns the invitation that the stream has shown, nil for none, when the
// account may be made: a name that somebody else is invited to is theirs (XEP-0445 §5).
func (v *invited) fits(ctx context.Context, stream string, at jid.JID) (*invitations.Invitation, error) {
	one := v.get(stream)
	id := ""
	if one != nil {
		id = one.ID
		if one.Account.Local() != "" && one.Account != at {
			return nil, stanza.NewError(stanza.NotAcceptable, "the invitation is for "+one.Account.Local())
		}
	}
	taken, err := v.tokens.Reserved(ctx, at, id)
	if err == nil && taken {
		err = stanza.NewError(stanza.Conflict, "the name is taken")
	}
	return one, err
}

// using uses an invitation up if make succeeds; nobody else does meanwhile.
func (v *invited) using(ctx context.Context, one *invitations.Invitation, make func() error) error {
	if one == nil {
		return make()
	}
	if err := v.tokens.Claim(ctx, one.ID); err != nil {
		return err
	}
	err := make()
	if err != nil { // it is as good as before
		err = errors.Join(err, v.tokens.Release(context.WithoutCancel(ctx), one.ID))
	}
	return err
}
