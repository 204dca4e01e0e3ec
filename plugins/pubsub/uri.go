package pubsub

import (
	"net/url"
	"strings"

	"parley/parser/jid"
)

// URI is the address of a node, or of an item of it if that is not "" (XEP-0060
// §12.22): all but the unreserved characters of RFC 3986 are escaped.
func (a Address) URI(item string) string {
	s := "xmpp:" + a.Service.String() + "?;node=" + escape(a.Node)
	if item != "" {
		s += ";item=" + escape(item)
	}
	return s
}

func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// ParseURI reads what URI writes, in any escaping.
func ParseURI(s string) (a Address, item string, ok bool) {
	rest, ok := strings.CutPrefix(s, "xmpp:")
	service, query, ok2 := strings.Cut(rest, "?;")
	if !ok || !ok2 {
		return a, "", false
	}
	service, err := url.PathUnescape(service)
	if err != nil {
		return a, "", false
	}
	if a.Service, err = jid.Parse(service); err != nil {
		return a, "", false
	}
	for pair := range strings.SplitSeq(query, ";") {
		key, value, _ := strings.Cut(pair, "=")
		if value, err = url.PathUnescape(value); err != nil {
			return a, "", false
		}
		switch key {
		case "node":
			a.Node = value
		case "item":
			item = value
		}
	}
	return a, item, a.Node != ""
}
