package abuse

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// asked is the head of the answer to a request at the door for browsers.
func (w *world) asked(method, target, header string) string {
	w.Helper()
	p, err := dialPeer(w.Door("http"))
	w.must(err)
	defer p.drop()
	w.must(p.say(method + " " + target + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n" + header + "\r\n"))
	answer, err := p.until("\r\n\r\n")
	w.must(err)
	return answer
}

// No address makes the server send a browser somewhere else: not one with two
// slashes or a backslash in front, which browsers take for another host, and
// not one in a parameter.
func TestSecurityOpenRedirect(t *testing.T) {
	w := start(t, configured([]string{unlimited}, nil))
	location := regexp.MustCompile(`(?im)^location: (.*?)\r?$`)
	ours := regexp.MustCompile(`^/([^/\\]|$)`) // a path of this host
	for _, front := range []string{"/", "//", "///", `/\`, `\\`, "/%2f", "/%5c", "/%09/", "/./", "/.//", "/x/..//"} {
		for _, path := range []string{
			"evil.example", "evil.example/", "evil.example/..", "evil.example/%2e%2e", "evil.example//invite/x", "invite//evil.example", "invite/..//evil.example",
			"invite/x?redirect_uri=https://evil.example", "?url=//evil.example", "xmpp-websocket/?next=//evil.example", "xmpp-websocket/../..//evil.example", ".well-known//host-meta",
		} {
			for _, method := range []string{"GET", "HEAD", "POST"} {
				answer := w.asked(method, front+path, "X-Forwarded-Host: evil.example\r\n")
				if m := location.FindStringSubmatch(answer); m != nil && !ours.MatchString(m[1]) {
					t.Errorf("%s %s%s leads to %s", method, front, path, m[1])
				}
			}
		}
	}
	w.unharmed()
}

// There is nothing that a strange page could do in a browser's name: no door for
// browsers sets a cookie, lets credentials cross origins, or leads to the
// administration, whose socket no browser can open.
func TestSecurityCrossSiteRequests(t *testing.T) {
	w := start(t, configured([]string{unlimited}, nil))
	for _, path := range []string{
		"/v1/status", "/v1/accounts", "/v1/accounts/alice@localhost/disable", "/v1/config/reload", "/v1/plugins/muc/stop", "/v1/invitations",
		"/", "/invite/x", "/xmpp-websocket", "/.well-known/host-meta", "/.well-known/host-meta.json", "/upload/x/y",
	} {
		for _, method := range []string{"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"} {
			answer := strings.ToLower(w.asked(method, path, "Origin: https://evil.example\r\nCookie: session=1\r\nAuthorization: Basic YWxpY2U6c2VjcmV0\r\nAccess-Control-Request-Method: POST\r\n"))
			if strings.Contains(answer, "\r\nset-cookie:") || strings.Contains(answer, "\r\naccess-control-allow-credentials:") {
				t.Errorf("%s %s: %s", method, path, answer)
			}
			if strings.HasPrefix(path, "/v1/") && !strings.HasPrefix(answer, "http/1.1 404 ") {
				t.Errorf("%s %s is there: %s", method, path, answer)
			}
		}
	}
	w.unharmed()
}

// What stands in a paging field of any request that the server knows, to any of
// its addresses, never reaches a database as a part of a statement: that would
// be an internal error, or harm (XEP-0059 §2).
func TestSecuritySQLInjectionEverywhere(t *testing.T) {
	spaces, locals := vocabulary(t)
	w := start(t, configured([]string{unlimited}, nil))
	mallory := w.login("mallory", "m")
	for _, evil := range []string{"' OR '1'='1", "1; DROP TABLE account; --"} {
		evil = strings.ReplaceAll(evil, "'", "&apos;")
		page := fmt.Sprintf("<set xmlns='http://jabber.org/protocol/rsm'><max>5</max><before>%s</before><after>%[1]s</after></set>", evil)
		for _, to := range []string{"mallory@localhost", "localhost"} {
			for _, ns := range spaces {
				var all strings.Builder
				for _, local := range locals {
					fmt.Fprintf(&all, "<iq to='%s' type='get' id='%s'><%[3]s xmlns='%[4]s' node=\"%[5]s\">%[6]s</%[3]s></iq>", to, w.fresh("e"), local, ns, evil, page)
				}
				w.say(mallory, "%s", all.String())
				for _, el := range w.until(mallory) {
					if strings.Contains(string(el.Bytes("")), "<internal-server-error") {
						t.Errorf("%s to %s: %s", ns, to, el.Bytes(""))
					}
				}
			}
		}
	}
	w.unharmed()
}
