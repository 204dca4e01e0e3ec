package blocklists

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"

	"parley/parser/jid"
	"parley/parser/stanza"
)

// defaultNode is where lists of this kind are, when nobody says otherwise.
const defaultNode = "muc_bans_sha256"

// source is where a list is.
type source struct {
	service jid.JID
	node    string
}

// parseSource reads "rtbl.example" or "xmpp:rtbl.example?;node=muc_bans_sha256" (XEP-0060
// §12.21).
func parseSource(s string) (source, error) {
	address, query, _ := strings.Cut(strings.TrimPrefix(s, "xmpp:"), "?")
	service, err := jid.Parse(address)
	if err != nil || !service.IsBare() {
		return source{}, fmt.Errorf("%q is no block list: write rtbl.example, or xmpp:rtbl.example?;node=NODE", s)
	}
	src := source{service, defaultNode}
	for part := range strings.SplitSeq(query, ";") {
		if name, ok := strings.CutPrefix(part, "node="); ok {
			if src.node, err = url.PathUnescape(name); err != nil || src.node == "" {
				return source{}, fmt.Errorf("%q names no node", s)
			}
		}
	}
	return src, nil
}

// String is the source as it is kept and shown.
func (s source) String() string {
	return "xmpp:" + s.service.String() + "?;node=" + url.PathEscape(s.node)
}

// hash stands for an address in a list.
type hash [sha256.Size]byte

func hashOf(s string) hash { return sha256.Sum256([]byte(s)) }

func (h hash) String() string { return hex.EncodeToString(h[:]) }

// parseHash reads an item's id; false: it is none of such a list.
func parseHash(id string) (h hash, ok bool) {
	if len(id) != hex.EncodedLen(len(h)) {
		return h, false
	}
	_, err := hex.Decode(h[:], []byte(id))
	return h, err == nil
}

// entry is an item that can be read.
type entry struct {
	hash   hash
	reason string // for people
}

// maxReason bounds what is kept of an item's payload, in bytes.
const maxReason = 200

const nsReporting = "urn:xmpp:reporting:1"

// parseEntry reads an <item/> of any namespace of pubsub.
func parseEntry(item *stanza.Element) (e entry, ok bool) {
	if e.hash, ok = parseHash(item.Get("id")); !ok {
		return e, false
	}
	for payload := range item.Elements() {
		e.reason = reasonOf(payload)
	}
	return e, true
}

// reasonOf reads a report (XEP-0377 §4), the payload that such lists have.
func reasonOf(payload *stanza.Element) string {
	if payload == nil || payload.Name != (stanza.Name{Space: nsReporting, Local: "report"}) {
		return ""
	}
	reason := strings.TrimPrefix(payload.Get("reason"), "urn:xmpp:reporting:")
	if text := payload.Child(nsReporting, "text"); text != nil && text.Text() != "" {
		reason = strings.TrimSpace(reason + ": " + text.Text())
	}
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "")
	}
	return reason
}
