package sasl

import (
	"encoding/base64"
	"strings"
)

// Condition is the name of a SASL failure condition, and of its element in urn:ietf:params:xml:ns:xmpp-sasl.
type Condition string

// The conditions of RFC 6120 §6.5.
const (
	Aborted              Condition = "aborted"                // §6.5.1
	AccountDisabled      Condition = "account-disabled"       // §6.5.2, only to those who proved their password
	CredentialsExpired   Condition = "credentials-expired"    // §6.5.3, likewise
	EncryptionRequired   Condition = "encryption-required"    // §6.5.4
	IncorrectEncoding    Condition = "incorrect-encoding"     // §6.5.5
	InvalidAuthzid       Condition = "invalid-authzid"        // §6.5.6
	InvalidMechanism     Condition = "invalid-mechanism"      // §6.5.7
	MalformedRequest     Condition = "malformed-request"      // §6.5.8
	MechanismTooWeak     Condition = "mechanism-too-weak"     // §6.5.9
	NotAuthorized        Condition = "not-authorized"         // §6.5.10
	TemporaryAuthFailure Condition = "temporary-auth-failure" // §6.5.11
)

// Failure is how an exchange ends badly. Condition and Text go to the peer; Err is for the log alone.
type Failure struct {
	Condition Condition
	Text      string // may be empty; holds nothing about the account
	Err       error  // the cause, when there is one that the operator must see
}

func (f *Failure) Error() string {
	parts := []string{"sasl: " + string(f.Condition)}
	if f.Text != "" {
		parts = append(parts, f.Text)
	}
	if f.Err != nil {
		parts = append(parts, f.Err.Error())
	}
	return strings.Join(parts, ": ")
}

func (f *Failure) Unwrap() error { return f.Err }

func fail(c Condition, text string) *Failure { return &Failure{Condition: c, Text: text} }

func temporary(err error) *Failure { return &Failure{Condition: TemporaryAuthFailure, Err: err} }

// maxMessage bounds one decoded message. A pre-authentication element is no larger (reliability row 1).
const maxMessage = 8 << 10

// DecodeResponse decodes the character data of SASL's <auth/> (initial) or <response/>, and of SASL2's
// <initial-response/> and <response/> (not initial: there an absent element says that there is no response).
// As <auth/> data, "" means no initial response and gives nil, "=" an empty one (RFC 6120 §6.4.2).
// Anything but canonical base64 is a *Failure with incorrect-encoding (RFC 6120 §6.5.5, §13.9.1).
func DecodeResponse(text string, initial bool) ([]byte, error) {
	if initial {
		switch text {
		case "":
			return nil, nil
		case "=":
			return []byte{}, nil
		}
	}
	b, ok := decodeBase64(text)
	if !ok {
		return nil, fail(IncorrectEncoding, "")
	}
	return b, nil
}

// decodeBase64 is strict: no line breaks, no stray characters, no stray bits (RFC 4648 §3.3, §3.5). Never nil when ok.
func decodeBase64(s string) ([]byte, bool) {
	if strings.ContainsAny(s, "\r\n") { // which encoding/base64 would skip
		return nil, false
	}
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		return nil, false
	}
	return b, true
}
