package abuse

import (
	"fmt"
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"parley/parser/stanza"
)

// What came in the clear behind <starttls/> is not part of the stream that
// begins after the handshake (RFC 6120 §5.4.3.3; CVE-2011-0411 and its kin).
func TestSecurityStartTLSInjection(t *testing.T) {
	w := start(t, configured([]string{unlimited}, nil))
	for _, injected := range []string{header, header + plain("alice", secret), plain("alice", secret), "<iq type='get' id='1'/>", "</stream:stream>", "<!-- "} {
		w.injected(w.Door("c2s"), injected)
	}
	w.unharmed()
}

// Whatever another account wraps into a carbon stays what it is: a message of
// its own, and never one without a body (CVE-2017-5589, XEP-0280 §11).
func TestSecurityForgedCarbons(t *testing.T) {
	w := start(t, configured([]string{unlimited}, nil))
	victim, mallory := w.login("victim", "v"), w.login("mallory", "m")
	w.say(victim, "<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq><presence/>")
	w.until(victim)
	inner := "<forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='alice@localhost/x' to='victim@localhost/v'><body>pay mallory</body></message></forwarded>"
	for _, wrap := range []string{
		"<received xmlns='urn:xmpp:carbons:2'>%s</received>", "<sent xmlns='urn:xmpp:carbons:2'>%s</sent>",
		"<c:received xmlns:c='urn:xmpp:carbons:2'>%s</c:received>", "<result xmlns='urn:xmpp:mam:2' id='1'>%s</result>",
	} {
		for _, to := range []string{"victim@localhost", victim.JID.String()} {
			for _, from := range []string{"", " from='victim@localhost'", " from='localhost'"} {
				for _, typ := range []string{"chat", "normal", "headline"} {
					w.say(mallory, "<message to='%s'%s type='%s'>%s</message>", to, from, typ, fmt.Sprintf(wrap, inner))
				}
			}
		}
	}
	w.until(mallory)
	for _, el := range w.until(victim) {
		if el.Name.Local == "message" {
			t.Errorf("victim got %s", el.Bytes(""))
		}
	}
}

// An id in the name of the recipient's server comes from there (XEP-0359 §6).
func TestSecurityForgedStanzaID(t *testing.T) {
	w := start(t, configured([]string{unlimited}, nil))
	victim, mallory := w.login("victim", "v"), w.login("mallory", "m")
	w.say(victim, "<presence/>")
	w.until(victim)
	foreign := []string{"victim@localhost/v", "localhost"} // nobody's archive
	own := []string{"victim@localhost", "VICTIM@localhost", "\uff56ictim@LOCALHOST"}
	for i, by := range append(own, foreign...) {
		w.say(mallory, "<message to='victim@localhost' type='chat' id='m%d'><body>b</body><stanza-id xmlns='urn:xmpp:sid:0' by='%s' id='forged'/><s:stanza-id xmlns:s='urn:xmpp:sid:0' by='%[2]s' id='forged'/></message>", i, by)
	}
	w.until(mallory)
	n := 0
	for _, el := range w.until(victim) {
		if el.Name.Local != "message" {
			continue
		}
		n++
		for id := range el.Elements() {
			if id.Name.Space == "urn:xmpp:sid:0" && id.Get("id") == "forged" && !slices.Contains(foreign, id.Get("by")) {
				t.Errorf("a forged id arrived: %s", el.Bytes(""))
			}
		}
	}
	if n != len(own)+len(foreign) {
		t.Errorf("%d messages arrived", n)
	}
}

// Secrets come from crypto/rand alone.
func TestSecurityWeakRandomness(t *testing.T) {
	forSource(t, func(name string, fset *token.FileSet, f *ast.File) {
		if strings.Contains(name, "/cmd/xmppload/") { // a client that makes noise
			return
		}
		for _, imp := range f.Imports {
			if strings.HasPrefix(imp.Path.Value, `"math/rand`) {
				t.Errorf("%s: %s", fset.Position(imp.Pos()), imp.Path.Value)
			}
		}
	})
	w := start(t, configured([]string{unlimited}, nil))
	streamID := regexp.MustCompile(`<stream:stream [^>]*\bid='([^']*)'`)
	fastToken := regexp.MustCompile(`<token xmlns='urn:xmpp:fast:0' token='([^']*)'`)
	w.account("mallory", secret)
	seen := map[string]bool{}
	note := func(what, id string) {
		if seen[id] || len(id) < 22 { // 128 bits, however they are written
			t.Errorf("%s %q is short, or comes twice", what, id)
		}
		seen[id] = true
	}
	for i := range 20 {
		p := w.dial()
		w.must(p.auth("mallory"))
		w.must(p.bind("r" + strconv.Itoa(i)))
		w.must(p.manage())
		for _, m := range streamID.FindAllSubmatch(p.got, -1) {
			note("stream id", string(m[1]))
		}
		note("resumption id", p.id)
		p.drop()

		f := w.dial()
		w.must(f.exchange(header, "</stream:features>"))
		w.must(f.exchange("<starttls xmlns='"+nsTLS+"'/>", "<proceed xmlns='"+nsTLS+"'/>"))
		w.must(f.secure())
		w.must(f.exchange(header, "</stream:features>"))
		ask := "<authenticate xmlns='" + nsSASL2 + "' mechanism='PLAIN'><initial-response>" + b64("\x00mallory\x00"+secret) +
			"</initial-response><user-agent id='d4565fa7-4d72-4749-b3d3-740edbf877" + fmt.Sprintf("%02d", i) + "'/><request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/></authenticate>"
		w.must(f.exchange(ask, "</success>"))
		m := fastToken.FindSubmatch(f.got)
		if m == nil {
			t.Fatalf("no token: %s", tail(string(f.got)))
		}
		note("FAST token", string(m[1]))
		f.drop()
	}
}

// names of the same length, so that answers can be compared byte by byte: one
// does not exist, one is away, one is there.
var names = []string{"unknown1", "offline1", "online01"}

// transcript is what a stranger gets back for what he sends about a name,
// with the name taken out.
func (w *world) transcript(stranger *peer, name, what string) string {
	w.Helper()
	id := w.fresh("done")
	sent := make(chan error, 1) // the answers are more than sockets hold
	go func() {
		sent <- stranger.say(strings.ReplaceAll(what, "$NAME", name) + "<iq type='get' id='" + id + "'><ping xmlns='urn:xmpp:ping'/></iq>")
	}()
	got, err := stranger.until("id='" + id + "'")
	w.must(err)
	_, err = stranger.until("/>")
	w.must(err)
	w.must(<-sent)
	return strings.ReplaceAll(got, name, "$NAME")
}

// same asserts that what a stranger learns about each name is the same.
func (w *world) same(what ...string) {
	w.Helper()
	offline := w.login(names[1], "r")
	w.say(offline, "<presence/>")
	w.until(offline)
	w.must(offline.Send("</stream:stream>"))
	if _, err := w.tryNext(offline, func(*stanza.Element) bool { return false }); err == nil {
		w.Fatal("offline1 is not offline")
	}
	online := w.login(names[2], "r")
	w.say(online, "<presence><status>a secret</status></presence>")
	w.until(online)
	stranger := w.bound("stranger", "s")
	for _, x := range what {
		want := w.transcript(stranger, names[0], x)
		for _, name := range names[1:] {
			if got := w.transcript(stranger, name, x); got != want {
				w.Errorf("%s:\n%s gets %s\n%s gets %s", x, names[0], firstDifference(want, got), name, firstDifference(got, want))
			}
		}
	}
	for _, el := range w.until(online) { // nor does it find out that it was asked
		if el.Name.Local == "iq" {
			w.Errorf("online01 got %s", el.Bytes(""))
		}
	}
}

// firstDifference is what a has around the place where it differs from b.
func firstDifference(a, b string) string {
	i := 0
	for i < min(len(a), len(b)) && a[i] == b[i] {
		i++
	}
	from := strings.LastIndex(a[:i], "<iq")
	return a[max(from, 0):min(len(a), i+300)]
}

// A stranger who asks about presence in any way learns the same of an account
// that is there, of one that is away, and of one that is not (rule 54, rule 65).
func TestSecurityPresenceLeak(t *testing.T) {
	w := start(t, configured([]string{unlimited}, nil))
	var what []string
	for _, to := range []string{"$NAME@localhost", "$NAME@localhost/nowhere"} {
		for _, typ := range []string{"probe", "unavailable", "unsubscribe", "unsubscribed", "subscribed", "error", "invented"} {
			what = append(what, fmt.Sprintf("<presence to='%s' type='%s' id='p'/>", to, typ))
		}
		what = append(what, "<presence to='"+to+"' id='p'/>")
		for _, q := range []string{
			"<query xmlns='http://jabber.org/protocol/disco#info'/>", "<query xmlns='http://jabber.org/protocol/disco#items'/>", "<query xmlns='jabber:iq:last'/>",
			"<query xmlns='urn:xmpp:mam:2'/>", "<metadata xmlns='urn:xmpp:mam:2'/>", "<ping xmlns='urn:xmpp:ping'/>", "<time xmlns='urn:xmpp:time'/>", "<query xmlns='jabber:iq:roster'/>",
		} {
			for _, typ := range []string{"get", "set"} {
				what = append(what, fmt.Sprintf("<iq to='%s' type='%s' id='q'>%s</iq>", to, typ, q))
			}
		}
	}
	w.same(what...)
	w.unharmed()
}

// Every kind of request to an account, of each namespace that the server knows
// with each name of a payload that it knows, is answered byte by byte alike,
// whether the account is there or not (RFC 6120 §13.11, rule 35).
func TestSecurityUserEnumerationByRequests(t *testing.T) {
	spaces, locals := vocabulary(t)
	if len(spaces) < 30 || len(locals) < 10 {
		t.Fatalf("%d namespaces, %d names: the server's source is not understood", len(spaces), len(locals))
	}
	w := start(t, configured([]string{unlimited}, nil))
	var what []string
	for _, to := range []string{"$NAME@localhost", "$NAME@localhost/nowhere"} {
		var all strings.Builder
		for _, ns := range spaces {
			for _, local := range locals {
				for _, typ := range []string{"get", "set"} {
					fmt.Fprintf(&all, "<iq to='%s' type='%s' id='q'><%s xmlns='%s'/></iq>", to, typ, local, ns)
				}
			}
		}
		what = append(what, all.String())
	}
	w.same(what...)
	w.unharmed()
}

// vocabulary is every namespace that the server's source names, and the name of every
// payload that it registers a handler for.
func vocabulary(t *testing.T) (spaces, locals []string) {
	t.Helper()
	like := regexp.MustCompile(`^(urn:xmpp:|urn:ietf:params:xml:ns:xmpp-|jabber:|http://jabber\.org/|vcard-temp)`)
	forSource(t, func(_ string, _ *token.FileSet, f *ast.File) {
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BasicLit:
				if s, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING && like.MatchString(s) && !strings.ContainsAny(s, " '<&%") {
					spaces = append(spaces, s)
				}
			case *ast.CallExpr:
				sel, _ := n.Fun.(*ast.SelectorExpr)
				if sel == nil || sel.Sel.Name != "IQ" || len(n.Args) != 4 {
					return true
				}
				if lit, _ := n.Args[1].(*ast.BasicLit); lit != nil {
					s, _ := strconv.Unquote(lit.Value)
					locals = append(locals, s)
				}
			}
			return true
		})
	})
	slices.Sort(spaces)
	slices.Sort(locals)
	return slices.Compact(spaces), slices.Compact(locals)
}

// A wrong password and a name that does not exist are refused byte by byte
// alike, by every mechanism and in both dialects (RFC 6120 §13.11).
func TestSecurityUserEnumerationByLogins(t *testing.T) {
	w := start(t, configured([]string{unlimited}, nil))
	w.account(names[1], secret)
	for _, try := range []func(name string) (first, second string){
		func(n string) (string, string) { return plain(n, "wrong"), "" },
		func(n string) (string, string) {
			return "<authenticate xmlns='" + nsSASL2 + "' mechanism='PLAIN'><initial-response>" + b64("\x00"+n+"\x00wrong") + "</initial-response></authenticate>", ""
		},
		func(n string) (string, string) {
			return "<auth xmlns='" + nsSASL + "' mechanism='SCRAM-SHA-1'>" + b64("n,,n="+n+",r=abc") + "</auth>",
				"<response xmlns='" + nsSASL + "'>" + b64("c=biws,r=abc,p=AAAAAAAAAAAAAAAAAAAAAAAAAAA=") + "</response>"
		},
	} {
		answers := map[string]string{}
		for _, n := range names[:2] {
			p := w.dial()
			w.must(p.exchange(header, "</stream:features>"))
			first, second := try(n)
			from := p.seen
			w.must(p.say(first))
			if second != "" {
				challenge, err := p.until("</challenge>")
				w.must(err)
				answers[n] = fmt.Sprint(len(challenge)) // nonce and salt differ, and have one length
				from = p.seen
				w.must(p.say(second))
			}
			_, err := p.until("</failure>")
			w.must(err)
			answers[n] += string(p.got[from:])
		}
		if answers[names[0]] != answers[names[1]] {
			t.Errorf("%s\n%s", answers[names[0]], answers[names[1]])
		}
	}
	w.unharmed()
}
