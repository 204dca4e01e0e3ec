package inbox

import (
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"parley/parser/jid"
	"parley/parser/stanza"
)

// Namespaces of what names somebody in a message.
const (
	nsReference = "urn:xmpp:reference:0" // XEP-0372
	nsReply     = "urn:xmpp:reply:0"     // XEP-0461
)

// Bounds of what is looked for in one message.
const (
	maxMentions = 50
	mentionBody = 4 << 10 // bytes of the body in which nicknames are looked for
)

// mentions are who is named in a message.
type mentions struct {
	named []jid.JID
	body  string // in lower case; "": nicknames are not looked for
}

// mentionsIn reads a message's mentions (XEP-0372 §3.2), whom it replies to
// (XEP-0461 §3), and in a room what may name somebody in its words (XEP-0492 §3).
func mentionsIn(st *stanza.Stanza) (m mentions) {
	for _, c := range st.Children {
		if len(m.named) == maxMentions {
			break
		}
		switch c.Name {
		case stanza.Name{Space: nsReference, Local: "reference"}:
			if el := st.Element(c); el != nil && el.Get("type") == "mention" {
				if at, ok := uriOf(el.Get("uri")); ok {
					m.named = append(m.named, at)
				}
			}
		case stanza.Name{Space: nsReply, Local: "reply"}:
			if el := st.Element(c); el != nil {
				if at, err := jid.Parse(el.Get("to")); err == nil {
					m.named = append(m.named, at)
				}
			}
		}
	}
	if st.Type == stanza.TypeGroupchat {
		body := st.Body()
		m.body = strings.ToLower(body[:min(len(body), mentionBody)])
	}
	return m
}

// uriOf reads the address in an xmpp URI (RFC 5122 §2.2).
func uriOf(uri string) (jid.JID, bool) {
	path, ok := strings.CutPrefix(uri, "xmpp:")
	if !ok {
		return jid.JID{}, false
	}
	path, _, _ = strings.Cut(path, "?")
	path, err := url.PathUnescape(path)
	if err != nil {
		return jid.JID{}, false
	}
	at, err := jid.Parse(path)
	return at, err == nil
}

// nobody reports a message that can name nobody.
func (m *mentions) nobody() bool { return len(m.named) == 0 && m.body == "" }

// name reports whether the message names an account; occupant is its address in
// the room, zero when it has none, and nick its name there.
func (m *mentions) name(account, occupant jid.JID, nick string) bool {
	for _, at := range m.named {
		if at.Bare() == account || !occupant.IsZero() && at == occupant {
			return true
		}
	}
	return nick != "" && m.body != "" && hasWord(m.body, strings.ToLower(nick))
}

// hasWord reports whether s has w in it with nothing that goes on a word around it.
func hasWord(s, w string) bool {
	for from := 0; ; {
		i := strings.Index(s[from:], w)
		if i < 0 {
			return false
		}
		i += from
		before, _ := utf8.DecodeLastRuneInString(s[:i])
		after, _ := utf8.DecodeRuneInString(s[i+len(w):])
		if !goesOn(before) && !goesOn(after) {
			return true
		}
		_, size := utf8.DecodeRuneInString(s[i:])
		from = i + size
	}
}

// goesOn reports a character that makes a longer word of its neighbour. Scripts
// that set no spaces between words have none.
func goesOn(r rune) bool {
	return (unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_') && !unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai)
}
