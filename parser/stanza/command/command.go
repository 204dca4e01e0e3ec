// Package command reads and writes what ad-hoc commands look like (XEP-0050), for
// everybody who has some.
package command

import (
	"parley/parser/stanza"
	"parley/parser/stanza/form"
)

// NS is the namespace, and the node under which an entity lists its commands
// (XEP-0050 §2.2).
const NS = "http://jabber.org/protocol/commands"

// Actions of a requester (XEP-0050 §3.4).
const (
	Execute  = "execute"
	Cancel   = "cancel"
	Prev     = "prev"
	Next     = "next"
	Complete = "complete"
)

// Statuses of a session (XEP-0050 §4.1).
const (
	Executing = "executing"
	Completed = "completed"
	Canceled  = "canceled"
)

// MaxSessionID bounds what a client calls its session, in bytes.
const MaxSessionID = 128

// Request is <command/> as a requester sends it.
type Request struct {
	Node    string
	Session string // "": a new one
	Action  string
	Form    *stanza.Element // <x/>; nil: none
}

// Read reads a request. Errors are *stanza.Error: bad-request.
func Read(q *stanza.Element) (Request, error) {
	r := Request{q.Get("node"), q.Get("sessionid"), q.Get("action"), form.In(q)}
	switch r.Action {
	case "":
		r.Action = Execute
	case Execute, Cancel, Prev, Next, Complete:
	default:
		return r, Bad("malformed-action")
	}
	if len(r.Session) > MaxSessionID || q.Has("sessionid") && r.Session == "" {
		return r, Bad("bad-sessionid")
	}
	return r, nil
}

// Bad is an error of XEP-0050 §4.4: malformed-action, bad-action, bad-locale,
// bad-payload, bad-sessionid.
func Bad(why string) error {
	return &stanza.Error{Type: stanza.Modify, Condition: stanza.BadRequest, App: stanza.El(NS, why)}
}

// Expired is the error for a session that took too long (XEP-0050 §4.4).
func Expired() error {
	return &stanza.Error{Type: stanza.Cancel, Condition: stanza.NotAllowed, App: stanza.El(NS, "session-expired")}
}

// Answer is <command/> of the responder.
func Answer(node, session, status string) *stanza.Element {
	return stanza.El(NS, "command").With("node", node).With("sessionid", session).With("status", status)
}

// Actions is what may be done next, the default first (XEP-0050 §3.4).
func Actions(allowed ...string) *stanza.Element {
	out := stanza.El(NS, "actions").With("execute", allowed[0])
	for _, a := range []string{Prev, Next, Complete} { // in the order of the schema
		for _, b := range allowed {
			if a == b {
				out.Add(stanza.El(NS, a))
			}
		}
	}
	return out
}

// Note is what people are told (XEP-0050 §4.3); kind is info, warn or error.
func Note(kind, text string) *stanza.Element {
	return stanza.El(NS, "note").With("type", kind).AddText(text)
}
