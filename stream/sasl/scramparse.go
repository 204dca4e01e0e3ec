package sasl

import (
	"strings"
	"unicode/utf8"
)

// clientFirst is client-first-message (RFC 5802 §7).
type clientFirst struct {
	gs2      string      // the GS2 header as received, with its last comma
	bare     string      // client-first-message-bare as received
	flag     string      // "n", "y" or "p"
	binding  BindingType // with "p"
	authzid  string      // unescaped, "" when absent
	username string      // unescaped
	nonce    string
}

// clientFinal is client-final-message (RFC 5802 §7).
type clientFinal struct {
	withoutProof string
	cbind        []byte
	nonce        string
	proof        []byte
}

func parseClientFirst(msg string) (clientFirst, bool) {
	var f clientFirst
	flag, rest, ok := strings.Cut(msg, ",")
	if !ok || !validText(msg) {
		return f, false
	}
	authz, bare, ok := strings.Cut(rest, ",")
	if !ok {
		return f, false
	}
	f.gs2, f.bare = msg[:len(msg)-len(bare)], bare
	switch {
	case flag == "n" || flag == "y":
		f.flag = flag
	case strings.HasPrefix(flag, "p=") && isBindingName(flag[2:]):
		f.flag, f.binding = "p", BindingType(flag[2:])
	default: // including GS2's "F", which SCRAM never sends
		return f, false
	}
	if authz != "" {
		if f.authzid, ok = saslname(authz, "a="); !ok {
			return f, false
		}
	}
	// "m=" comes first, so a message with a mandatory extension has no "n=" here: it fails, as §5.1 "m" wants.
	attrs := strings.Split(bare, ",")
	if len(attrs) < 2 || !extensions(attrs[2:]) {
		return f, false
	}
	if f.username, ok = saslname(attrs[0], "n="); !ok {
		return f, false
	}
	f.nonce, ok = strings.CutPrefix(attrs[1], "r=")
	return f, ok && isPrintable(f.nonce)
}

func parseClientFinal(msg string) (clientFinal, bool) {
	var f clientFinal
	at := strings.LastIndex(msg, ",p=")
	if at < 0 || !validText(msg) {
		return f, false
	}
	f.withoutProof = msg[:at]
	attrs := strings.Split(f.withoutProof, ",")
	if len(attrs) < 2 || !extensions(attrs[2:]) {
		return f, false
	}
	cbind, isBind := strings.CutPrefix(attrs[0], "c=")
	nonce, isNonce := strings.CutPrefix(attrs[1], "r=")
	f.nonce = nonce
	var bindOK, proofOK bool
	f.cbind, bindOK = decodeBase64(cbind)
	f.proof, proofOK = decodeBase64(msg[at+3:])
	return f, isBind && isNonce && bindOK && proofOK && isPrintable(nonce)
}

// extensions: optional attributes are ignored, if they are attributes; "m" never is (RFC 5802 §5.1, §7).
func extensions(attrs []string) bool {
	for _, a := range attrs {
		if len(a) < 3 || a[1] != '=' || a[0] == 'm' || (a[0]|0x20) < 'a' || (a[0]|0x20) > 'z' {
			return false
		}
	}
	return true
}

// saslname unescapes a name: "=2C" is a comma, "=3D" an equals sign, any other "=" an error (RFC 5802 §5.1 "n").
func saslname(attr, prefix string) (string, bool) {
	s, ok := strings.CutPrefix(attr, prefix)
	if !ok || s == "" {
		return "", false
	}
	var b strings.Builder
	for {
		head, tail, found := strings.Cut(s, "=")
		b.WriteString(head)
		if !found {
			return b.String(), true
		}
		switch {
		case strings.HasPrefix(tail, "2C"):
			b.WriteByte(',')
		case strings.HasPrefix(tail, "3D"):
			b.WriteByte('=')
		default:
			return "", false
		}
		s = tail[2:]
	}
}

// validText: messages are UTF-8 without NUL (RFC 5802 §7, value-char).
func validText(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// isPrintable: RFC 5802 §7, printable.
func isPrintable(s string) bool {
	for i := range len(s) {
		if s[i] < 0x21 || s[i] > 0x7E || s[i] == ',' {
			return false
		}
	}
	return s != ""
}

// isBindingName: RFC 5802 §7, cb-name.
func isBindingName(s string) bool {
	for _, r := range s {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-') {
			return false
		}
	}
	return s != ""
}
