// Package carbons shows each of an account's devices what the others say and
// hear.
//
// Specs: XEP-0280 (carbons), XEP-0297 (forwarding), XEP-0334 §4.3 (no-copy),
// XEP-0386 (switched on while binding). Which messages are copied stands in
// plugins/message/kinds.
//
// The flow: a client switches copies on (processor, or the streamer while it
// binds), which is a bit of its session's state. What a client sends is copied
// to the account's other sessions in the processor, when everybody else has
// had his look at it; what an account receives is copied in the router, which
// alone knows who has got the message itself. Copies go to sessions by name:
// no hook sees them, and none is ever copied again or bounced to the sender
// (§10.3).
//
// A message with <private/> or <no-copy/> goes out as it is: removing them, as
// earlier versions of the XEP had it, would let the next server copy it (§9).
package carbons

import (
	"context"
	"errors"

	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/message/kinds"
	"parley/processor"
	"parley/router"
	"parley/router/channel"
	"parley/router/sessions"
	"parley/stream"
)

// Names and namespaces.
const (
	Name = "carbons"
	NS   = stanza.NSCarbons
)

// Plugin provides carbons.
var Plugin = plugins.Plugin{
	Name: Name,
	Doc:  "Copies of messages for an account's other devices.",
	Components: []plugins.Maker{
		{Server: processor.Name, New: newSwitch},
		{Server: router.Name, New: newCopier},
		{Server: stream.Name, New: newInline},
	},
	Contract: func(plugins.Env) (any, error) { return newAnswers() },
}

// idle has nothing to start or stop.
type idle struct{}

// Start implements plugins.Component.
func (idle) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (idle) Stop(context.Context) error { return nil }

// sender works in the processor: the switch, and copies of what is sent.
type sender struct {
	idle
	env     plugins.Env
	reg     *processor.Registrar
	answers *answers
}

func newSwitch(env plugins.Env, _ plugins.Config) (plugins.Component, error) {
	a, err := plugins.Need[*answers](env, Name)
	return &sender{env: env, answers: a}, err
}

// Register implements processor.Component.
func (s *sender) Register(r *processor.Registrar) {
	s.reg = r
	anybody := processor.Self | processor.Account
	r.IQ(NS, "enable", anybody, s.set(true))
	r.IQ(NS, "disable", anybody, s.set(false))
	r.Feature(NS, "urn:xmpp:carbons:rules:0") // §3, §6.2
	processor.On(r, processor.Outgoing, processor.Last, s.outgoing)
	processor.On(r, processor.Incoming, processor.Last, s.incoming)
}

// set answers §4 and §5; doing it twice is no error (§10.1).
func (s *sender) set(on bool) processor.IQHandler {
	return func(_ context.Context, q *processor.IQ) (*stanza.Element, error) {
		switch {
		case q.Session == nil, q.Session.Kind != sessions.Client:
			return nil, stanza.NewError(stanza.NotAllowed, "")
		case !q.Own():
			return nil, stanza.NewError(stanza.Forbidden, "")
		case !q.Set():
			return nil, stanza.NewError(stanza.BadRequest, "")
		}
		if _, ok := s.reg.Change(q.Session.Ref, func(st *sessions.State) { st.Carbons = on }); !ok {
			return nil, errors.New("the session is gone")
		}
		return nil, nil
	}
}

// outgoing copies to the sender's other devices (§8).
func (s *sender) outgoing(_ context.Context, f *processor.Flow) (processor.Verdict, error) {
	if f.Kind != stanza.Message {
		return processor.Continue, nil
	}
	k := kinds.Of(f.Stanza)
	f.Private = f.Private || k.Has(kinds.Private|kinds.NoCopy)
	all := s.env.Sessions.Account(f.Session.JID.Bare())
	own := f.To.Bare() == f.Session.JID.Bare() // to itself: the copy of what is received is enough
	only := len(all) == 1 && all[0].Ref == f.Session.Ref
	if len(all) == 0 || only || f.Private || own || !k.Copied(kinds.Sent) {
		return processor.Continue, nil
	}
	s.answers.expect(f.Stanza)
	var c *copies
	for _, x := range all {
		if !x.Carbons || x.Ref == f.Session.Ref {
			continue
		}
		if c == nil {
			edits := f.Edits()
			edits.Append = append(edits.Append[:len(edits.Append):len(edits.Append)], f.Marks()...)
			c = newCopies("sent", f.Stanza, f.Raw, edits)
		}
		f.Send(c.to(x))
	}
	return processor.Continue, nil
}

// incoming tells the router what the sender wishes (§9).
func (s *sender) incoming(_ context.Context, f *processor.Flow) (processor.Verdict, error) {
	if f.Kind == stanza.Message && !f.Private {
		f.Private = kinds.Of(f.Stanza).Has(kinds.Private | kinds.NoCopy)
	}
	return processor.Continue, nil
}

// copies wraps one message for many sessions: the bytes are made once, each
// session gets a start tag of its own.
type copies struct {
	typ   string
	raw   []byte
	class channel.Class
}

// newCopies wraps a message as its recipient gets it (§7, §8, XEP-0297 §3).
func newCopies(direction string, st *stanza.Stanza, raw []byte, edits stanza.Edits) *copies {
	edits.Head = st.StampForwarded().Head
	if edits.Tail == "" { // the message itself goes out untouched
		whole := st.StampForwarded()
		edits.Inner, edits.Cut, edits.Tail = whole.Inner, whole.Cut, whole.Tail
	}
	c := &copies{typ: st.Type, class: channel.Urgent}
	c.raw = append(c.raw, "<"+direction+" xmlns='"+NS+"'><forwarded xmlns='"+stanza.NSForward+"'>"...)
	c.raw = edits.Render(c.raw, raw)
	c.raw = append(c.raw, "</forwarded></"+direction+">"...)
	if kinds.Of(st).Fleeting() {
		c.class = channel.ChatState
	}
	return c
}

// to addresses the copy; it comes from the account itself (§7).
func (c *copies) to(x *sessions.Entry) *channel.Envelope {
	st := stanza.Make(stanza.Message, c.typ, x.JID.Bare(), x.JID, "")
	edits := st.Stamp()
	edits.Inner = stanza.Span{Start: 0, End: len(c.raw)}
	return &channel.Envelope{Kind: channel.Deliver, To: []sessions.Ref{x.Ref}, Raw: c.raw, Edits: edits, Stanza: st, Class: c.class}
}
