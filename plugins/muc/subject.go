package muc

import (
	"parley/parser/jid"
	"parley/parser/stanza"
)

// changesSubject reports whether a message is a change of the subject: it has one,
// and neither a body nor a thread (XEP-0045 §8.1).
func changesSubject(st *stanza.Stanza) bool {
	return st.Has(stanza.NSClient, "subject") && !st.Has(stanza.NSClient, "body") && !st.Has(stanza.NSClient, "thread")
}

// maySetSubject is muc#roomconfig_changesubject.
func (r *room) maySetSubject(o *occupant) bool {
	return o.role == Moderator || o.role == Participant && r.cfg.Subjects
}

// shown is the subject as who enters gets it: there always is one, if an empty one
// (XEP-0045 §7.2.15).
func (s subject) shown(r *room) *stanza.Stanza {
	if s.stanza == nil {
		return stanza.Make(stanza.Message, stanza.TypeGroupchat, r.jid, jid.JID{}, "", stanza.El(stanza.NSClient, "subject"))
	}
	return must(copied(s.stanza, s.stanza.From, stanza.TypeGroupchat, nil, r.delay(s.at)))
}

// subjectOf is the text of it.
func subjectOf(st *stanza.Stanza) string {
	if el := st.Child(stanza.NSClient, "subject"); el != nil {
		return el.Text()
	}
	return ""
}
