package extdisco

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // what TURN servers compute: draft-uberti-behave-turn-rest-00 §2.2
	"encoding/base64"
	"strconv"
	"time"

	"parley/parser/jid"
)

// grant is what somebody gets to use a service.
type grant struct {
	username, password string
	expires            time.Time // zero: never
}

// grant makes credentials for the account; empty ones when the service wants none.
func (d *directory) grant(cfg *Config, s *Service, who jid.JID) grant {
	if s.Secret.IsZero() {
		return grant{username: s.Username, password: s.Password.Reveal()}
	}
	return limited(s.Secret.Reveal(), who.Bare(), d.env.Clock.Now().Add(cfg.TTL))
}

// limited makes credentials that end by themselves (draft-uberti-behave-turn-rest-00
// §2.2): the name says until when and for whom, and the password proves that it was
// made here.
func limited(secret string, who jid.JID, until time.Time) grant {
	until = until.Truncate(time.Second)
	name := strconv.FormatInt(until.Unix(), 10) + ":" + who.String()
	mac := hmac.New(sha1.New, []byte(secret))
	_, _ = mac.Write([]byte(name)) // it never fails
	return grant{name, base64.StdEncoding.EncodeToString(mac.Sum(nil)), until}
}
