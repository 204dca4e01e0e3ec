package abuse

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"parley/parser/stanza"
)

const nsRegister = "jabber:iq:register"

// condition is the defined condition of a stanza error, "" if el is none.
func condition(el *stanza.Element) string {
	e := el.Child(stanza.NSClient, "error")
	if e == nil {
		return ""
	}
	for c := range e.Elements() {
		if c.Name.Space == stanza.NSStanzas {
			return c.Name.Local
		}
	}
	return "none"
}

// Who was not asked to make accounts cannot, and is told so.
func TestReliability11Off(t *testing.T) {
	w := start(t, configured([]string{unlimited}, nil))
	form := "<iq type='%s' id='%[1]s'><query xmlns='" + nsRegister + "'><username>spam</username><password>" + secret + "</password></query></iq>"
	w.during(8, func() {
		p := w.dial()
		w.must(p.say(header))
		if features, err := p.until("</stream:features>"); err != nil || strings.Contains(features, "iq-register") {
			t.Errorf("offered: %s, %v", features, err)
		}
		for _, typ := range []string{"get", "set"} {
			w.must(p.say(fmt.Sprintf(form, typ)))
			if got, err := p.until("</iq>"); err != nil || !strings.Contains(got, "<service-unavailable ") {
				t.Errorf("%s: %s, %v", typ, got, err)
			}
		}
	})
	p := w.dial()
	w.must(p.exchange(header, "</stream:features>"))
	w.must(p.exchange(plain("spam", secret), "<not-authorized/></failure>"))
}

// One address makes so many accounts and no more, over however many
// connections, and is told to wait.
func TestReliability11RegistrationSpam(t *testing.T) {
	const allowed, spammers, each = 5, 10, 6
	w := start(t, strings.Replace(configured([]string{unlimited}, nil), cheap, cheap+fmt.Sprintf("\n      register: {enabled: true, per_hour: %d}", allowed), 1))
	var mu sync.Mutex
	made := map[bool][]string{}
	w.during(16, func() {
		var work sync.WaitGroup
		for i := range spammers {
			work.Go(func() {
				p, err := dialPeer(w.Door("c2s"))
				if err != nil {
					t.Error(err)
					return
				}
				defer p.drop()
				if err := p.exchange(header, "</stream:features>"); err != nil {
					t.Error(err)
					return
				}
				for j := range each {
					name := fmt.Sprintf("spam%dx%d", i, j)
					err := p.say("<iq type='set' id='" + name + "'><query xmlns='" + nsRegister + "'><username>" + name + "</username><password>" + secret + "</password></query></iq>")
					if err == nil {
						_, err = p.until(" id='" + name + "'")
					}
					var got string
					if err == nil {
						got, err = p.until(">")
					}
					result := strings.Contains(got, "type='result'")
					if err == nil && !result {
						got, err = p.until("</iq>")
					}
					if err != nil || !result && (!strings.Contains(got, "<error type='wait'>") || !strings.Contains(got, "<resource-constraint ")) {
						t.Errorf("%s: %q, %v", name, got, err)
						return
					}
					mu.Lock()
					made[result] = append(made[result], name)
					mu.Unlock()
				}
			})
		}
		work.Wait()
	})
	if len(made[true]) != allowed || len(made[false]) != spammers*each-allowed {
		t.Errorf("%d were made, %d refused", len(made[true]), len(made[false]))
	}
	for made, names := range made {
		for _, name := range names[:min(len(names), allowed)] {
			p := w.dial()
			if err := p.auth(name); (err == nil) != made {
				t.Errorf("%s, made %v: %v", name, made, err)
			}
			p.drop()
		}
	}
}

// A roster grows to its bounds: contacts, groups of one, names, and all of
// them together.
func TestReliability12RosterExplosion(t *testing.T) {
	const items, groups, name, size = 100, 32, 1024, 256 << 10
	w := start(t, configured([]string{unlimited}, []string{fmt.Sprintf("components: {roster: {max_items: %d, max_size: %d}}", items, size)}))
	mallory := w.login("mallory", "m")
	set := func(item string, args ...any) string {
		w.Helper()
		id := w.fresh("roster")
		w.say(mallory, "<iq type='set' id='"+id+"'><query xmlns='jabber:iq:roster'>"+fmt.Sprintf(item, args...)+"</query></iq>")
		return condition(w.next(mallory, withID(id)))
	}
	many := func(n, length int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "<group>%0*d</group>", length, i)
		}
		return b.String()
	}
	roster := func() *stanza.Element {
		w.Helper()
		w.say(mallory, "<iq type='get' id='all'><query xmlns='jabber:iq:roster'/></iq>")
		return w.next(mallory, withID("all"))
	}
	w.during(16, func() {
		for _, row := range []struct{ item, want string }{
			{"<item jid='a@x' name='" + strings.Repeat("n", name) + "'/>", ""},
			{"<item jid='a@x' name='" + strings.Repeat("n", name+1) + "'/>", "not-acceptable"},
			{"<item jid='a@x'><group>" + strings.Repeat("n", name+1) + "</group></item>", "not-acceptable"},
			{"<item jid='a@x'>" + many(groups, 3) + "</item>", ""},
			{"<item jid='a@x'>" + many(groups+1, 3) + "</item>", "resource-constraint"},
			{"<item jid='a@x'>" + many(5000, 3) + "</item>", "resource-constraint"},
			{"<item jid='a@x'/><item jid='b@x'/>", "bad-request"},
			{"<item jid='" + strings.Repeat("x", 1024) + "@x'/>", "jid-malformed"},
		} {
			if got := set("%s", row.item); got != row.want {
				t.Errorf("%.60s… is answered with %q, want %q", row.item, got, row.want)
			}
		}
		full := 0
		for i := range items { // as large as they may be
			if set("<item jid='big%d@x'>%s</item>", i, many(groups, name)) == "resource-constraint" {
				full++
			}
		}
		if kept := items - full; kept == 0 || kept > size/(groups*name) {
			t.Errorf("%d contacts of %d bytes are in a roster of %d", kept, groups*name, size)
		}
		if n := len(roster().Bytes("")); n > 2*size {
			t.Errorf("the roster is %d bytes large", n)
		}
		for i := range items {
			_ = set("<item jid='big%d@x' subscription='remove'/>", i)
			_ = set("<item jid='small%d@x'/>", i)
		}
		if got := set("<item jid='late@x'/>"); got != "resource-constraint" {
			t.Errorf("contact %d is answered with %q", items+1, got)
		}
		if n := roster().First().Count(); n != items {
			t.Errorf("%d contacts, want %d", n, items)
		}
	})
}

// A stranger who asks everybody for everything gets his requests delivered
// once, learns nothing, and shows himself to so many and no more; what he
// showed is taken back when he goes, and nothing is left of him.
func TestReliability13PresenceFlood(t *testing.T) {
	const rounds, directed = 200, 50
	w := start(t, configured([]string{unlimited}, []string{fmt.Sprintf("components: {presence: {max_directed: %d}}", directed)}))
	victim := w.login("victim", "v")
	w.say(victim, "<presence><status>a secret</status></presence>")
	w.until(victim)
	mallory := w.login("mallory", "m")
	w.say(mallory, "<presence/>")
	w.until(mallory)
	refused := 0
	w.during(16, func() {
		for i := range rounds {
			w.say(mallory, "<presence to='victim@localhost' type='subscribe'/><presence to='victim@localhost' type='probe'/><presence to='%s' type='probe'/>", victim.JID)
			w.say(mallory, "<presence to='victim@localhost/r%d' type='probe'/><presence to='nobody%[1]d@localhost' type='probe'/><presence to='nobody%[1]d@localhost' id='d%[1]d'/>", i)
			w.say(mallory, "<presence to='%s'/>", victim.JID)
		}
		for _, el := range w.until(mallory) {
			switch {
			case el.Name.Local == "presence" && condition(el) == "resource-constraint":
				refused++
			case el.Name.Local == "presence" && el.Get("type") != "error" && el.Get("from") != mallory.JID.String():
				t.Errorf("mallory learns %s", el.Bytes(""))
			}
		}
	})
	if refused != rounds-directed+1 { // the victim is one of them
		t.Errorf("%d of %d were refused", refused, rounds)
	}
	if n := count(w.until(victim), "subscribe"); n != 1 {
		t.Errorf("the victim is asked %d times", n)
	}
	// However he goes, and as often as he comes back.
	for i := range 3 {
		if i > 0 {
			mallory = w.login("mallory", "m")
			w.say(mallory, "<presence to='%s'/>", victim.JID)
			w.until(mallory)
		}
		if i == 1 {
			w.say(mallory, "</stream:stream>")
		}
		mallory.Close()
		w.next(victim, func(el *stanza.Element) bool {
			return el.Get("type") == stanza.TypeUnavailable && el.Get("from") == mallory.JID.String()
		})
		if n := count(w.until(victim), stanza.TypeUnavailable); n != 0 {
			t.Errorf("the victim hears %d times more that mallory has gone", n)
		}
	}
	// Whom the victim did not let in got nothing: neither to hear nor to ask about.
	again := w.login("mallory", "m")
	w.say(again, "<presence/><presence to='%s' type='probe'/>", victim.JID)
	w.say(victim, "<presence><status>another secret</status></presence>")
	w.until(victim)
	for _, el := range w.until(again) {
		if strings.HasPrefix(el.Get("from"), "victim@") {
			t.Errorf("mallory learns %s", el.Bytes(""))
		}
	}
}

// count is how many presence stanzas of a type are among them.
func count(els []*stanza.Element, typ string) (n int) {
	for _, el := range els {
		if el.Name.Local == "presence" && el.Get("type") == typ {
			n++
		}
	}
	return n
}
