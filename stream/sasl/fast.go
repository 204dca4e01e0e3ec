package sasl

import (
	"bytes"
	"context"
	"crypto/subtle"
	"errors"
	"time"
	"unicode/utf8"
)

// Fast is what a SASL2 request says about its token.
type Fast struct {
	ClientID string // <user-agent id=''/> (XEP-0484 §4.1)
	Count    int64  // <fast count=''/>, > 0; 0 when absent
	Early    bool   // the request came as TLS 0-RTT data
}

// Token is an issued token.
type Token struct {
	ID        int64     // the store's name for it
	Secret    string    // the token string as the client got it
	Mechanism string    // the one it was issued for, and only for (XEP-0484 §3.4)
	Expires   time.Time // XEP-0484 §3.3
	Count     int64     // the highest count processed, 0 if none
}

// Tokens are a client's two slots (XEP-0484 §5.1): the token issued last, not used yet, and the one in use, which is
// the previous one as soon as the new one is used.
type Tokens struct{ New, Current *Token }

// TokenUse tells of a successful use.
type TokenUse struct {
	Username, ClientID string
	ID                 int64     // of the token
	New                bool      // it was in the New slot
	Count              int64     // 0: the client sent none
	Expires            time.Time // when the token does: close to it, issue another (XEP-0484 §3.5)
}

// ErrReplay says that a count is not above the one already processed.
var ErrReplay = errors.New("sasl: token count already processed")

// TokenStore knows the tokens of a domain's accounts.
type TokenStore interface {
	// Tokens returns a client's slots. An unknown user, client, or an empty slot is no error. Errors: ErrDisabled
	// and ErrExpired, which come with the tokens; anything else is temporary.
	Tokens(ctx context.Context, username, clientID string) (Tokens, error)
	// Used records a use before the client is told: atomically, a New token moves to Current and what was there is
	// gone, and Count is stored if greater than the stored one. Errors: ErrReplay if it is not greater (only when
	// use.Count > 0), ErrUnknownUser if the token has gone meanwhile; anything else is temporary.
	Used(ctx context.Context, use TokenUse) error
}

func tokenFirst(x *exchange) step { return x.token }

// token checks the one message of the HT mechanisms: authcid NUL HMAC(token, "Initiator" || cb-data)
// (draft-schmaus-kitten-sasl-ht-09 §3).
func (x *exchange) token(ctx context.Context, response []byte) ([]byte, step, *Failure) {
	authcid, mac, ok := bytes.Cut(response, []byte{0})
	fast := x.ses.Fast
	if !ok || !utf8.Valid(authcid) || len(mac) != x.mech.Hash.Size() || fast == nil || fast.ClientID == "" || fast.Count < 0 {
		return nil, nil, fail(MalformedRequest, "")
	}
	if err := x.claim(string(authcid), ""); err != nil {
		return nil, nil, err
	}
	if fast.Early && fast.Count == 0 { // XEP-0484 §3.4: 0-RTT data can be replayed
		return nil, nil, fail(NotAuthorized, "")
	}
	tokens, err := x.srv.cfg.Tokens.Tokens(ctx, x.account, fast.ClientID)
	var refusal *Failure // for those who prove a token
	switch {
	case err == nil || errors.Is(err, ErrUnknownUser):
	case errors.Is(err, ErrDisabled):
		refusal = fail(AccountDisabled, "")
	case errors.Is(err, ErrExpired):
		refusal = fail(CredentialsExpired, "")
	default:
		return nil, nil, temporary(err)
	}
	cbind := x.ses.Binding.Data(x.mech.Binding)
	token, isNew := x.match(tokens, mac, cbind)
	if err := x.judge(token, fast, refusal); err != nil {
		return nil, nil, err
	}
	use := TokenUse{Username: x.account, ClientID: fast.ClientID, ID: token.ID, New: isNew, Count: fast.Count, Expires: token.Expires}
	switch err := x.srv.cfg.Tokens.Used(ctx, use); {
	case errors.Is(err, ErrReplay) || errors.Is(err, ErrUnknownUser):
		return nil, nil, fail(NotAuthorized, "")
	case err != nil:
		return nil, nil, temporary(err)
	}
	x.result.Token = &use
	x.result.Data = x.srv.kdf.hmac(x.mech.Hash, []byte(token.Secret), []byte("Responder"), cbind)
	return nil, nil, nil
}

// match finds the token behind a hash. Both slots are always computed, empty ones too: the work tells nothing.
func (x *exchange) match(tokens Tokens, mac, cbind []byte) (found *Token, isNew bool) {
	for i, t := range [...]*Token{tokens.New, tokens.Current} {
		secret := make([]byte, 32)
		if t != nil {
			secret = []byte(t.Secret)
		}
		sum := x.srv.kdf.hmac(x.mech.Hash, secret, []byte("Initiator"), cbind)
		equal := subtle.ConstantTimeCompare(sum, mac) == 1
		if equal && t != nil && t.Secret != "" && found == nil {
			found, isNew = t, i == 0
		}
	}
	return found, isNew
}

// judge decides about a token that matched, or nil (XEP-0484 §3.4, §4.2, §5.1).
func (x *exchange) judge(t *Token, fast *Fast, refusal *Failure) *Failure {
	switch {
	case t == nil, t.Mechanism != x.mech.Name:
		return fail(NotAuthorized, "")
	case refusal != nil:
		return refusal
	case !x.srv.cfg.Clock().Before(t.Expires):
		return fail(CredentialsExpired, "")
	case fast.Count > 0 && fast.Count <= t.Count:
		return fail(NotAuthorized, "")
	}
	return nil
}
