package sasl

import (
	"bytes"
	"context"
	"crypto/subtle"
	"unicode/utf8"
)

func plainFirst(x *exchange) step { return x.plain }

// plain checks the one message of RFC 4616 §2: [authzid] NUL authcid NUL passwd.
func (x *exchange) plain(ctx context.Context, response []byte) ([]byte, step, *Failure) {
	parts := bytes.Split(response, []byte{0})
	if len(parts) != 3 || len(parts[1]) == 0 || len(parts[2]) == 0 || !utf8.Valid(response) {
		return nil, nil, fail(MalformedRequest, "")
	}
	if err := x.claim(string(parts[1]), string(parts[0])); err != nil {
		return nil, nil, err
	}
	password := string(parts[2])
	forms, bad := passwordForms(password)
	if bad != nil { // RFC 4616 §2: preparation that fails fails the verification; before the look-up, for everybody
		return nil, nil, fail(NotAuthorized, "")
	}
	cred, err := x.srv.credential(ctx, x.account, AnyHash)
	if err != nil {
		return nil, nil, err
	}
	proven, err := x.verify(ctx, password, forms, cred)
	if err != nil {
		return nil, nil, err
	}
	if err := cred.verdict(proven); err != nil {
		return nil, nil, err
	}
	// A password with two forms is left alone: an imported client may know the one that new keys are not made of.
	if weak := x.srv.cfg.Weak; weak != nil && cred.keys.Iterations < x.srv.cfg.Iterations && len(forms) == 1 {
		weak(ctx, x.account, password, cred.keys)
	}
	return nil, nil, nil
}

// verify compares a password with stored keys, from memory or by PBKDF2 in the pool.
func (x *exchange) verify(ctx context.Context, password string, forms []string, cred credential) (bool, *Failure) {
	tag := x.srv.cfg.Verified.tag(x.srv.kdf, x.srv.cfg.Domain, x.account, password)
	if cred.known && x.srv.cfg.Verified.match(tag, cred.keys.StoredKey) {
		return true, nil
	}
	var proven bool
	var broken error
	busy := x.srv.cfg.Pool.Do(ctx, func() {
		for _, form := range forms {
			keys, err := x.srv.kdf.keys(form, cred.keys.Salt, cred.keys.Iterations, cred.keys.Hash)
			if err != nil {
				broken = err
				return
			}
			if subtle.ConstantTimeCompare(keys.StoredKey, cred.keys.StoredKey) == 1 && cred.known {
				proven = true
				return
			}
		}
	})
	if busy != nil {
		return false, temporary(busy)
	}
	if broken != nil {
		return false, temporary(broken)
	}
	if proven {
		x.srv.cfg.Verified.add(tag, cred.keys.StoredKey)
	}
	return proven, nil
}
