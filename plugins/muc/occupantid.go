package muc

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/storage"
)

// nsOccupantID is the namespace of XEP-0421.
const nsOccupantID = "urn:xmpp:occupant-id:0"

// pseudonyms are the names that people have in rooms, whatever their nickname: the
// same in one room for ever, another in every other room, and nobody can tell
// whose (XEP-0421 §4.1).
type pseudonyms struct{ key []byte }

func newPseudonyms(ctx context.Context, db storage.DB) (*pseudonyms, error) {
	key, err := storage.Secret(ctx, db, "muc.occupants", 32)
	return &pseudonyms{key}, err
}

// of is the occupant id of somebody, bare.
func (p *pseudonyms) of(room, who jid.JID) string {
	h := hmac.New(sha256.New, p.key)
	h.Write([]byte(room.String()))
	h.Write([]byte{0})
	h.Write([]byte(who.String()))
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:18])
}

func occupantID(id string) *stanza.Element {
	return stanza.El(nsOccupantID, "occupant-id").With("id", id)
}
