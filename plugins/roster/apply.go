package roster

import (
	"context"

	"parley/parser/jid"
	"parley/parser/stanza"
)

// Event is one subscription stanza, seen from one account.
type Event struct {
	Direction Direction
	Action    Action
	Owner     jid.JID        // the account, bare
	Contact   jid.JID        // the other side, bare
	Request   *stanza.Stanza // Inbound Subscribe: what is kept until it is answered; Raw has bare addresses
}

// Outcome is what has to be done about an Event.
type Outcome struct {
	Was, Now State
	Pass     bool   // Outbound: route the stanza; Inbound: deliver it
	Answers  bool   // the account's server answers by itself
	Answer   Action // with this
}

// Opened reports whether the contact gets the account's presence from now on.
func (o Outcome) Opened() bool { return !o.Was.From() && o.Now.From() }

// Closed reports whether the contact gets it no more.
func (o Outcome) Closed() bool { return o.Was.From() && !o.Now.From() }

// errFull says that the roster has no room (reliability row 12).
var errFull = stanza.NewError(stanza.ResourceConstraint, "the roster is full")

// Apply does to the owner's roster what RFC 6121 §A says, and pushes what
// changed. deliver, if not nil, runs after the change and before the push
// (§3.1.6, §3.2.3, §3.3.3); it may only route. The caller does the rest that
// the Outcome asks for.
func (r *Rosters) Apply(ctx context.Context, to Router, e Event, deliver func(Outcome)) (Outcome, error) {
	var o Outcome
	err := r.update(ctx, to, e.Owner, func(s *Snapshot) (change, error) {
		var ch change
		var err error
		o, ch, err = r.decide(s, e)
		return ch, err
	}, func() {
		if deliver != nil {
			deliver(o)
		}
	})
	return o, err
}

// decide looks the event up and turns the cell into a change.
func (r *Rosters) decide(s *Snapshot, e Event) (Outcome, change, error) {
	it, here := s.own(e.Contact)
	held := s.grant(e.Contact).State // no part of the owner's item
	was := s.State(e.Contact)
	if e.Direction == Outbound && (e.Action == Unsubscribe && held.To() || e.Action == Unsubscribed && held.From()) {
		return Outcome{Was: was, Now: was}, change{item: it}, errShared
	}
	cell := Lookup(e.Direction, e.Action, was)
	o := Outcome{Was: was, Now: cell.New, Pass: cell.Pass}
	approved := it.Approved
	switch cell.Note {
	case PreApprove: // §3.4.2
		approved = true
	case IfApproved: // §3.4.2: answered for the user, who does not see it
		if approved {
			o = Outcome{Was: was, Now: was | from, Answers: true, Answer: Subscribed}
		}
	case ReplySubscribed:
		o.Answers, o.Answer = true, Subscribed
	case ReplyUnsubscribed:
		o.Answers, o.Answer = true, Unsubscribed
	case NoNote, CancelApproval:
	}
	if e.Direction == Outbound && e.Action == Unsubscribed { // §3.4.2: until the user sends unsubscribed
		approved = false
	}
	own := (it.State | o.Now&^was) &^ (was &^ o.Now) &^ in
	if kept := was &^ o.Now & held; kept != 0 { // what the contact ends has not been its to give
		o.Now |= kept
		o.Pass, o.Answers = false, false
	}
	ch := change{item: it, answered: was.PendingIn() && !o.Now.PendingIn()}
	ch.item.ver = 0
	if o.Now.PendingIn() && !was.PendingIn() {
		if len(s.asked) >= r.limits.Load().Requests { // §3.1.3, security warning
			return Outcome{Was: was, Now: was}, change{item: ch.item}, nil
		}
		ch.request = r.kept(e.Request)
	}
	if own != it.State || approved != it.Approved {
		if !here && !r.limits.Load().room(s, it, it, here) {
			return o, ch, errFull
		}
		ch.item.State, ch.item.Approved, ch.item.ver = own, approved, r.next(s)
	}
	return o, ch, nil
}

// kept is what is stored of a request: the complete stanza (RFC 6121 §3.1.3),
// without its extensions when they are larger than anybody needs.
func (r *Rosters) kept(st *stanza.Stanza) []byte {
	if len(st.Raw) <= int(r.limits.Load().RequestSize) {
		return st.Raw
	}
	return stanza.Make(st.Kind, st.Type, st.From, st.To, st.ID).Raw
}
