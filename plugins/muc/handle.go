package muc

import (
	"context"
	"errors"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/router/cluster/owner"
)

// tries is how often a stanza may find its room worth nothing.
const tries = 4

// handle does what is to be done for a stanza (processor.Owned).
func (s *service) handle(ctx context.Context, st *stanza.Stanza, hold *owner.Hold) (*stanza.Element, error) {
	if hold == nil {
		return s.atService(ctx, st)
	}
	return s.serve(ctx, st, time.Time{}, hold)
}

// presence is handle for presence, of a session that was bound then.
func (s *service) presence(ctx context.Context, st *stanza.Stanza, bound time.Time, hold *owner.Hold) error {
	if hold == nil {
		_, err := s.atService(ctx, st)
		return err
	}
	_, err := s.serve(ctx, st, bound, hold)
	return err
}

func (s *service) serve(ctx context.Context, st *stanza.Stanza, bound time.Time, hold *owner.Hold) (*stanza.Element, error) {
	for i := 1; ; i++ {
		result, err := s.inRoom(ctx, st, bound, hold)
		switch {
		case !errors.Is(err, errAgain):
			return result, s.from(err, st)
		case i == tries:
			s.env.Log.Warn("stanza failed", "from", st.From.String(), "to", st.To.String(), "id", st.ID, "err", err)
			return nil, stanza.NewError(stanza.ResourceConstraint, "the room cannot be used now; try again later")
		}
	}
}

// from lets errors name the room, and those of presence say that they are about
// rooms: there are clients that wait for it (XEP-0045 §7.2.6).
func (s *service) from(err error, st *stanza.Stanza) error {
	var e *stanza.Error
	if errors.As(err, &e) && e.By.IsZero() {
		named := *e
		named.By = st.To.Bare()
		if st.Kind == stanza.Presence {
			named.Beside = stanza.El(NS, "x")
		}
		return &named
	}
	return err
}

func (s *service) inRoom(ctx context.Context, st *stanza.Stanza, bound time.Time, hold *owner.Hold) (*stanza.Element, error) {
	r, done, err := s.rooms.get(ctx, hold)
	if err != nil {
		return nil, err
	}
	defer done()
	switch {
	case st.From.IsZero():
		return nil, nil
	case st.Kind == stanza.Presence:
		if err := r.arrive(ctx, st); err != nil {
			return nil, err
		}
		return nil, r.onPresence(ctx, st, bound)
	case st.Kind == stanza.Message:
		if err := r.arrive(ctx, st); err != nil {
			return nil, err
		}
		return nil, r.onMessage(ctx, st)
	case st.Type == stanza.TypeGet || st.Type == stanza.TypeSet:
		return r.onRequest(ctx, st)
	}
	return nil, r.onAnswer(ctx, st)
}

// onPresence is XEP-0045 §17.3: what has a type is no request to enter, and what
// has another one than unavailable none to leave.
func (r *room) onPresence(ctx context.Context, st *stanza.Stanza, bound time.Time) error {
	switch st.Type {
	case "":
		return r.enter(ctx, st, bound)
	case stanza.TypeUnavailable:
		return r.leave(ctx, st, bound)
	case stanza.TypeError:
		r.bounced(ctx, st)
	}
	return nil
}

// onMessage is XEP-0045 §17.2.
func (r *room) onMessage(ctx context.Context, st *stanza.Stanza) error {
	if len(st.Raw) > int(r.s.cfg.MaxMessage) && st.Type != stanza.TypeError {
		return r.s.limit("message", stanza.PolicyViolation, "the message is too large")
	}
	switch {
	case st.Type == stanza.TypeError:
		if !r.bounced(ctx, st) && st.To.IsFull() {
			return r.whisper(ctx, st)
		}
		return nil
	case st.To.IsFull():
		return r.whisper(ctx, st)
	case st.Type == stanza.TypeGroupchat:
		return r.post(ctx, st)
	}
	for _, f := range []func(context.Context, *stanza.Stanza) (bool, error){r.mediate, r.request} {
		if mine, err := f(ctx, st); mine {
			return err
		}
	}
	return stanza.NewError(stanza.BadRequest, "messages to a room are of type groupchat")
}

// limit is the answer to what is too much.
func (s *service) limit(which string, c stanza.Condition, text string) error {
	s.m.refused.WithLabelValues(which).Inc()
	return stanza.NewError(c, text)
}

// tooFast is the answer to what comes too often (reliability row 15).
func (s *service) tooFast(which string) error {
	s.m.refused.WithLabelValues(which).Inc()
	return &stanza.Error{Type: stanza.Wait, Condition: stanza.PolicyViolation, Text: "that was too fast; wait a moment"}
}

// occupantOf is the session's occupant, or an error for who is not in the room.
func (r *room) occupantOf(at jid.JID) (*session, error) {
	x := r.sessions[at]
	if x == nil {
		if r.state == vacant {
			return nil, noRoom()
		}
		return nil, stanza.NewError(stanza.NotAcceptable, "only occupants can do that")
	}
	return x, nil
}

func noRoom() error { return stanza.NewError(stanza.ItemNotFound, "there is no such room") }

func forbidden() error { return stanza.NewError(stanza.Forbidden, "") }
