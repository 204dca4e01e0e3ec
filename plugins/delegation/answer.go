package delegation

import (
	"errors"

	"parley/parser/jid"
	"parley/parser/stanza"
)

// errAnswer: the component's answer is not one to the question.
var errAnswer = errors.New("not an answer to what was forwarded")

// answered is the component's answer as the server's own, when everything about it
// is right (§4.3): addresses, id, type. The addresses may be left out where the
// question's are known.
func answered(question, st *stanza.Stanza) (*stanza.Stanza, error) {
	out := st.Child(NS, "delegation")
	if out == nil {
		return nil, errAnswer
	}
	in := out.Child(stanza.NSForward, "forwarded")
	if in == nil {
		return nil, errAnswer
	}
	el := in.Child(stanza.NSClient, "iq")
	if el == nil || el.Get("type") != stanza.TypeResult || el.Get("id") != question.ID || el.Count() > 1 {
		return nil, errAnswer
	}
	if to, err := jid.Parse(el.Get("to")); err != nil || to != question.From {
		return nil, errAnswer
	}
	if el.Has("from") {
		asked := question.To
		if asked.IsZero() {
			asked = question.From.Bare()
		}
		if from, err := jid.Parse(el.Get("from")); err != nil || from != asked {
			return nil, errAnswer
		}
	}
	return question.Reply(el.First()), nil
}
