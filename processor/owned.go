package processor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"parley/parser/stanza"
	"parley/router/channel"
	"parley/router/cluster/owner"
	"parley/storage"
)

// ErrUnanswered is what Owned.Handle and IQHandlers return for a request that is
// answered by somebody else: it was handed on.
var ErrUnanswered = errors.New("the answer comes by itself")

// Owned is work on stanzas that one node at a time does for each key: what is
// addressed to a room. A stanza that comes to any node goes to the owner of its
// key, which is made when there is none (router/cluster/owner), and the sender's
// next one waits until it is done.
type Owned struct {
	// Key says whose work the stanza is; false: not this component's. It looks
	// at nothing but the stanza, so that all nodes say the same. "": any node does
	// it, and Handle gets no hold: what is addressed to the service of the rooms.
	Key func(*stanza.Stanza) (key string, ok bool)
	// Handle does the work where the key is owned; what it writes it commits
	// itself, with hold.Guard in every set. It may run for several stanzas of one
	// key at the same time. What it returns is an IQ request's payload, or an
	// error as an IQHandler's. One that wraps storage.ErrStale because the hold is
	// lost lets the next owner begin anew.
	Handle func(ctx context.Context, st *stanza.Stanza, hold *owner.Hold) (*stanza.Element, error)
	// Presence has, in the place of Handle, what is presence. bound is when the session
	// was bound that says it, or that it is said for because it has ended; of those that
	// have the same address one after the other the later one is bound later, whatever
	// clocks say (sessions.State.BoundAt). What had to wait may come behind what the next
	// one says. Zero: it is no session of ours. nil: Handle has it.
	Presence func(ctx context.Context, st *stanza.Stanza, bound time.Time, hold *owner.Hold) error
	// Failed hears, at the sender's node, of a stanza whose work has failed: when it
	// began, when the session was bound (Presence), and why. nil: nobody does. It must
	// not wait.
	Failed func(st *stanza.Stanza, began, bound time.Time, why error)
}

// Owned lets o have the stanzas that are its, whatever their domain, in the place
// of everything else that happens to what is sent to an address.
func (r *Registrar) Owned(o Owned) { r.owned = append(r.owned, o) }

// topicOwned is what stanzas travel under to the owners of their keys.
const topicOwned = "stanza"

// ownedBy is whose work a stanza is; nil: nobody's.
func (t *table) ownedBy(st *stanza.Stanza) (o *Owned, key string) {
	for i := range t.owned {
		if key, ok := t.owned[i].Key(st); ok {
			return &t.owned[i], key
		}
	}
	return nil, ""
}

// own lets the owner of the key do the work.
func (r *run) own(ctx context.Context, f *Flow, o *Owned, key string) (err error) {
	r.commitBefore(ctx, f)
	if o.Failed != nil {
		began := r.server.env.Clock.Now()
		defer func() {
			if err != nil {
				o.Failed(f.Stanza, began, f.bound(), err)
			}
		}()
	}
	if key == "" {
		return f.served(ctx, o, nil)
	}
	edits := f.Edits()
	answer, err := r.server.env.Owners.Do(ctx, owner.Work{
		Key: key, Topic: topicOwned,
		Here: func(ctx context.Context, hold *owner.Hold) error { return f.served(ctx, o, hold) },
		Payload: func() []byte {
			e := &channel.Envelope{Kind: channel.Arrive, Raw: edits.Render(nil, f.Raw), Stanza: f.Stanza}
			if bound := f.bound(); !bound.IsZero() {
				e.Stamp = bound.UnixMicro()
			}
			return channel.Encode(nil, e)
		},
	})
	switch {
	case err != nil:
		return r.server.ownedError(f.Stanza, err)
	case len(answer) == 0:
		return nil
	}
	e, err := channel.Decode(answer, nil)
	if err != nil || e.Stanza == nil {
		return fmt.Errorf("answer of the owner of %q: %w", key, errors.Join(err, channel.ErrWire))
	}
	if refused := e.Stanza.Err(); refused != nil { // as if it had been here: nothing else of the stanza lasts
		if first := e.Stanza.Children[0]; first.Name.Local != "error" {
			refused.Beside = e.Stanza.Element(first)
		}
		return refused
	}
	f.reply(e.Stanza)
	return nil
}

// bound is when the session was bound whose stanza it is, as precisely as nodes tell
// each other; zero: it is nobody's here.
func (f *Flow) bound() time.Time {
	switch {
	case f.Session == nil:
		return f.ended.Truncate(time.Microsecond)
	case f.Session.JID != f.From: // somebody behind a component
		return time.Time{}
	}
	return f.Session.BoundAt.Truncate(time.Microsecond)
}

func (o *Owned) do(ctx context.Context, st *stanza.Stanza, bound time.Time, hold *owner.Hold) (*stanza.Element, error) {
	if st.Kind == stanza.Presence && o.Presence != nil {
		return nil, o.Presence(ctx, st, bound, hold)
	}
	return o.Handle(ctx, st, hold)
}

// served lets o do the work here.
func (f *Flow) served(ctx context.Context, o *Owned, hold *owner.Hold) error {
	result, err := o.do(ctx, f.Stanza, f.bound(), hold)
	if errors.Is(err, ErrUnanswered) {
		return nil
	}
	if reply := f.Stanza.Reply(result); err == nil && reply != nil {
		f.reply(reply)
	}
	return err
}

// ownedError is what the sender of a stanza hears of work that could not be done
// (design: D4).
func (s *Server) ownedError(st *stanza.Stanza, err error) error {
	condition := stanza.RemoteServerTimeout
	switch {
	case errors.Is(err, owner.ErrUnknown):
	case errors.Is(err, owner.ErrNobody):
		condition = stanza.RecipientUnavailable
	default:
		return err
	}
	s.log.Warn("stanza failed", "from", st.From.String(), "to", st.To.String(), "id", st.ID, "err", err)
	return stanza.NewError(condition, "")
}

// owned does work that another node has sent, and returns the reply: the sender's
// node gives it to the sender. It is an owner.Handler.
func (s *Server) owned(ctx context.Context, hold *owner.Hold, payload []byte) ([]byte, error) {
	e, err := channel.Decode(payload, nil)
	if err != nil || e.Stanza == nil {
		return nil, fmt.Errorf("stanza for %q: %w", hold.Key, errors.Join(err, channel.ErrWire))
	}
	var bound time.Time
	if e.Stamp != 0 {
		bound = time.UnixMicro(e.Stamp)
	}
	if err := s.sighted(ctx, e.Stanza, bound); err != nil {
		return reply(e.Stanza.ErrorReply(s.stanzaError(e.Stanza, err))), nil
	}
	t := s.acquire()
	defer t.Leave()
	var result *stanza.Element
	o, key := t.ownedBy(e.Stanza)
	if o == nil || key != hold.Key { // what serves it has not begun here, or has ended: another node may, or this one in a moment
		return nil, fmt.Errorf("stanza for %q: nothing serves it here: %w", hold.Key, owner.ErrNobody)
	}
	err = s.protect(func() (err error) {
		result, err = o.do(ctx, e.Stanza, bound, hold)
		return err
	})
	if errors.Is(err, ErrUnanswered) {
		return nil, nil
	}
	switch {
	case err == nil:
		return reply(e.Stanza.Reply(result)), nil
	case errors.Is(err, storage.ErrStale):
		return nil, err
	}
	return reply(e.Stanza.ErrorReply(s.stanzaError(e.Stanza, err))), nil
}

// reply is the answer to the sender's node; nil: there is none.
func reply(st *stanza.Stanza) []byte {
	if st == nil {
		return nil
	}
	return channel.Encode(nil, &channel.Envelope{Kind: channel.Route, Raw: st.Raw, Stanza: st})
}

// sightWait is how long work waits for the sight of the session that it is done for.
// Nodes that hear each other again show each other everything within a second or two.
const sightWait = 5 * time.Second

// maxSights is how much work waits so at a time: the rest of what a node does for others
// is not to wait behind it.
const maxSights = 64

// sighted waits until this node knows the session of another one that shows itself to
// what is owned here, or a later one with its address: what that one is told goes where
// the session is. Sessions are shown on a road of their own, which may be behind. The
// error is for the session, whose node gives it to it.
func (s *Server) sighted(ctx context.Context, st *stanza.Stanza, bound time.Time) error {
	if bound.IsZero() || st.Kind != stanza.Presence || st.Type != "" {
		return nil
	}
	known, stop := s.env.Sessions.Await(st.From, bound)
	defer stop()
	select {
	case <-known:
		return nil
	default:
	}
	if s.sights.Add(1) <= maxSights {
		ctx, cancel := context.WithTimeout(ctx, sightWait)
		defer cancel()
		select {
		case <-known:
			s.sights.Add(-1)
			return nil
		case <-ctx.Done():
		}
	}
	s.sights.Add(-1)
	s.log.Warn("another node's session is not known here in time", "jid", st.From.String())
	return stanza.NewError(stanza.RemoteServerTimeout, "the nodes of this server do not hear each other at the moment; try again")
}
