package register

import (
	"container/list"
	"context"
	"errors"
	"sync"
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
	clock  plugins.Clock
	tokens *invitations.Tokens

	mu    sync.Mutex // leaf
	known map[string]*list.Element
	order *list.List // of shown, the oldest first
}

type shown struct {
	stream     string
	until      time.Time
	invitation invitations.Invitation
}

const (
	maxInvited = 4096             // streams; one more makes the oldest show its token again
	invitedFor = 10 * time.Minute // more than a stream has for its login
)

func newInvited(clock plugins.Clock, t *invitations.Tokens) *invited {
	return &invited{clock: clock, tokens: t, known: map[string]*list.Element{}, order: list.New()}
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
	s.invited.add(c.ID(), one)
	return nil, nil
}

func (v *invited) add(stream string, one invitations.Invitation) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.drop(v.known[stream])
	now := v.clock.Now()
	for e := v.order.Front(); e != nil && (v.order.Len() >= maxInvited || now.After(e.Value.(shown).until)); e = v.order.Front() {
		v.drop(e)
	}
	v.known[stream] = v.order.PushBack(shown{stream, now.Add(invitedFor), one})
}

func (v *invited) drop(e *list.Element) {
	if e != nil {
		delete(v.known, v.order.Remove(e).(shown).stream)
	}
}

func (v *invited) get(stream string) *invitations.Invitation {
	v.mu.Lock()
	defer v.mu.Unlock()
	e, ok := v.known[stream]
	if !ok || v.clock.Now().After(e.Value.(shown).until) {
		return nil
	}
	one := e.Value.(shown).invitation
	return &one
}

func (v *invited) has(stream string) bool { return v.get(stream) != nil }

func (v *invited) forget(stream string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.drop(v.known[stream])
}

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
