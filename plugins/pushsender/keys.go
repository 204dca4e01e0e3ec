package pushsender

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"strings"
	"time"
)

// Errors of keys say nothing of their content.
var (
	errNoKey = errors.New("there is no private key in it (PEM)")
	errCurve = errors.New("the key is not one of the curve P-256")
)

// privateKey reads a key in PEM: PKCS #8, or what openssl ecparam writes.
func privateKey(text string) (any, error) {
	for rest := []byte(text); ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, errNoKey
		}
		switch block.Type {
		case "PRIVATE KEY":
			if k, err := x509.ParsePKCS8PrivateKey(block.Bytes); err == nil {
				return k, nil
			}
		case "EC PRIVATE KEY":
			if k, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
				return k, nil
			}
		}
	}
}

// curveKey reads a key of P-256, in PEM or as its 32 bytes in base64url.
func curveKey(text string) (*ecdsa.PrivateKey, error) {
	if raw, err := decode64(text); err == nil && len(raw) == 32 {
		k, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), raw)
		if err != nil {
			return nil, errCurve
		}
		return k, nil
	}
	k, err := privateKey(text)
	if err != nil {
		return nil, err
	}
	ec, ok := k.(*ecdsa.PrivateKey)
	if !ok || ec.Curve != elliptic.P256() {
		return nil, errCurve
	}
	return ec, nil
}

func rsaKey(text string) (*rsa.PrivateKey, error) {
	k, err := privateKey(text)
	if err != nil {
		return nil, err
	}
	r, ok := k.(*rsa.PrivateKey)
	if !ok {
		return nil, errors.New("private_key is not an RSA key")
	}
	return r, nil
}

// decode64 reads base64 in either alphabet, padded or not.
func decode64(s string) ([]byte, error) {
	s = strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(strings.TrimSpace(s), "="))
	return base64.RawURLEncoding.DecodeString(s)
}

func encode64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// ticket is a token that is used for a while.
type ticket struct {
	text  string
	made  time.Time
	until time.Time
}

// good reports whether it can be used.
func (t *ticket) good(now time.Time) bool { return t.text != "" && now.Before(t.until) }
