// Package delivery is the table of RFC 6121 §8.5: what becomes of a stanza for
// a local account, given the sessions that the account has now.
//
// The router asks it for the recipients. The processor asks it before a
// message is stored, because what is refused must not be archived (XEP-0313
// §6.1); that is why it belongs to neither.
package delivery

import (
	"parley/parser/stanza"
	"parley/router/sessions"
)

// Action is what the table prescribes.
type Action uint8

// The actions.
const (
	Refuse  Action = iota // answer with an error
	Drop                  // say nothing
	ToAll                 // every session with non-negative priority
	ToOne                 // exactly the addressed session
	ToAvail               // every available session (presence)
	Keep                  // nobody is there: it stays in the archive; without one, refuse
)

type situation uint8

const (
	bareSome  situation = iota // to the bare JID, somebody receives
	bareNone                   // to the bare JID, nobody with a non-negative priority
	fullMatch                  // to a full JID that is bound
	fullSome                   // to a full JID that is gone, others receive
	fullNone                   // to a full JID that is gone, nobody receives
	situations
)

// table is RFC 6121 §8.5.4, Table 1, for accounts that exist; where the RFC
// leaves a choice it is an error, never silence, and all non-negative sessions.
var table = [...]map[string][situations]Action{
	// §8.5.2.1.1, §8.5.2.2.1, §8.5.3.1, §8.5.3.2.1 bareSome bareNone fullMatch fullSome fullNone
	stanza.Message: {
		"normal":    {ToAll, Keep, ToOne, Refuse, Refuse},
		"chat":      {ToAll, Keep, ToOne, ToAll, Keep},
		"groupchat": {Refuse, Refuse, ToOne, Refuse, Refuse},
		"headline":  {ToAll, Drop, ToOne, Refuse, Refuse},
		"error":     {Drop, Drop, ToOne, Drop, Drop},
	},
	// §8.5.2.1.2, §8.5.2.2.2, §8.5.3.1, §8.5.3.2.2
	stanza.Presence: {
		"":            {ToAvail, ToAvail, ToOne, Drop, Drop},
		"unavailable": {ToAvail, ToAvail, ToOne, Drop, Drop},
		"error":       {ToAvail, ToAvail, ToOne, Drop, Drop},
	},
	// §8.5.3.1, §8.5.3.2.3; to the bare JID the processor has answered already
	stanza.IQ: {
		"get":    {Refuse, Refuse, ToOne, Refuse, Refuse},
		"set":    {Refuse, Refuse, ToOne, Refuse, Refuse},
		"result": {Drop, Drop, ToOne, Drop, Drop},
		"error":  {Drop, Drop, ToOne, Drop, Drop},
	},
}

// Decide looks the stanza up. all are the account's sessions.
func Decide(st *stanza.Stanza, all []*sessions.Entry) Action {
	row, ok := table[st.Kind][MessageType(st)]
	if !ok {
		return Drop // subscription stanzas, to sessions that are not theirs
	}
	return row[situate(st, all)]
}

// MessageType returns the stanza's type with RFC 6121 §5.2.2's rule applied:
// a message of an absent or unknown type is normal.
func MessageType(st *stanza.Stanza) string {
	if st.Kind != stanza.Message {
		return st.Type
	}
	switch st.Type {
	case "chat", "groupchat", "headline", "error":
		return st.Type
	}
	return "normal"
}

func situate(st *stanza.Stanza, all []*sessions.Entry) situation {
	receives := false
	for _, e := range all {
		if st.To.IsFull() && e.JID == st.To {
			return fullMatch
		}
		receives = receives || e.Receives()
	}
	switch {
	case st.To.IsFull() && receives:
		return fullSome
	case st.To.IsFull():
		return fullNone
	case receives:
		return bareSome
	}
	return bareNone
}
