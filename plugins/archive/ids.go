package archive

import (
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/storage"
)

// timeOf is the moment an id was given (storage.IDs).
func timeOf(id int64) time.Time { return time.UnixMicro(id).UTC() }

// stampLayout is XEP-0082 §3.2, as fine as ids are: a client that filters by a
// stamp it was told finds the message.
const stampLayout = "2006-01-02T15:04:05.000000Z"

// maskKey is the bytes of the key that hides the order of ids.
const maskKey = 32

// stanzaID is the element that tells an account's devices where a message is
// archived (XEP-0313 §3.5, XEP-0359 §3).
func (a *Archive) stanzaID(o *owner, id int64) *stanza.Element {
	return stanza.El(stanza.NSStanzaID, "stanza-id").With("by", o.jid.String()).With("id", a.mask.Encode(id))
}

// claims reports whether a child is a stanza-id in the name of by.
func claims(st *stanza.Stanza, c stanza.Child, by jid.JID) bool {
	if c.Name != (stanza.Name{Space: stanza.NSStanzaID, Local: "stanza-id"}) {
		return false
	}
	el := st.Element(c)
	if el == nil {
		return true
	}
	who, err := jid.Parse(el.Get("by"))
	return err == nil && who == by
}

// idAt is the lowest id of a moment.
func idAt(t time.Time) int64 { return storage.FirstID(t) }
