package abuse

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"parley/parser/stanza"
)

// Who a client says it is does not matter: everybody sees who it is.
func TestReliability23SpoofedFrom(t *testing.T) {
	w := start(t, configured([]string{unlimited}, nil))
	mallory := w.login("mallory", "m")
	w.during(8, func() {
		for i, from := range []string{w.alice.JID.String(), "alice@localhost", "localhost", "elsewhere.example", "@", ""} {
			id := fmt.Sprintf("s%d", i)
			w.say(mallory, "<message from='%s' to='%s' type='headline' id='%s'><body>b</body></message>", from, w.bob.JID, id)
			w.say(mallory, "<iq from='%s' to='%s' type='get' id='%s'><query xmlns='urn:test'/></iq>", from, w.bob.JID, id)
			w.say(mallory, "<presence from='%s' to='%s' type='unavailable' id='%s'/>", from, w.bob.JID, id)
		}
		w.until(mallory)
	})
	// The bystanders' own messages went to w.bob as well: what is left are mallory's.
	for _, el := range w.until(w.bob) {
		if from := el.Get("from"); strings.HasPrefix(el.Get("id"), "s") && from != mallory.JID.String() {
			t.Errorf("mallory passes for %s: %s", from, el.Bytes(""))
		}
	}
}

// Answers that nobody asked for, and roster changes in another's name, do nothing.
func TestReliability24SpoofedResults(t *testing.T) {
	w := start(t, configured([]string{unlimited}, nil))
	victim, mallory := w.login("victim", "v"), w.login("mallory", "m")
	w.say(victim, "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq><presence><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='n' ver='q07IKJEyjvHSyhy//CH0CxmKi8w='/></presence>")
	ask := w.next(victim, func(el *stanza.Element) bool { return el.Get("type") == "get" }) // the server wants to know what victim can do
	info := "<query xmlns='http://jabber.org/protocol/disco#info' node='n#q07IKJEyjvHSyhy//CH0CxmKi8w='><identity category='client' type='pc' name='forged'/></query>"
	w.during(8, func() {
		for _, to := range []string{"localhost", "victim@localhost", victim.JID.String(), "mallory@localhost"} {
			w.say(mallory, "<iq type='result' id='%s' to='%s' from='%s'>%s</iq>", ask.Get("id"), to, victim.JID, info)
			w.say(mallory, "<iq type='set' id='push' to='%s' from='victim@localhost'><query xmlns='jabber:iq:roster'><item jid='mallory@localhost' subscription='both'/></query></iq>", to)
		}
		w.until(mallory)
	})
	for _, el := range w.until(victim) {
		if el.Get("id") == "push" && el.Get("from") != mallory.JID.String() {
			t.Errorf("a forged roster push: %s", el.Bytes(""))
		}
	}
	w.say(victim, "<iq type='get' id='r2'><query xmlns='jabber:iq:roster'/></iq>")
	if r := w.next(victim, withID("r2")); r.First() != nil && r.First().Count() != 0 {
		t.Errorf("victim's roster: %s", r.Bytes(""))
	}
}

// Addresses are prepared once and for all: what is not one gets an error, and
// every spelling of one is the same.
func TestReliability25Addresses(t *testing.T) {
	w := start(t, configured([]string{unlimited}, nil))
	strasse := w.login("stra\u00dfe\u00e9", "r")
	w.say(strasse, "<presence/>")
	w.until(strasse)
	mallory := w.login("mallory", "m")
	long := strings.Repeat("x", 1023)
	w.during(16, func() {
		for i, to := range []string{
			"@localhost", "localhost/", "a@/r", "a b@localhost", "a&quot;@localhost", "a@b@localhost/", "bob@localhost/", long + "x@localhost",
			"bob@localhost/" + long + "x", "a@" + long + "x", "\u202ebob@localhost", "b\u200bob@localhost",
			"\u2160@localhost", "a\u0300\u0627@localhost", "bob@xn--a", "bob@\u0130..x", "\u0378@localhost", "bob@localhost/\u0001", strings.Repeat("\u00e4", 512) + "@localhost",
		} {
			if i == 17 { // no XML at all: row 3's business
				continue
			}
			id := fmt.Sprintf("j%d", i)
			w.say(mallory, "<message to='%s' id='%s'><body>b</body></message>", to, id)
			back := w.next(mallory, withID(id))
			if e := back.Child(stanza.NSClient, "error"); e == nil || e.Child(stanza.NSStanzas, "jid-malformed") == nil {
				t.Errorf("%q: %s", to, back.Bytes(""))
			}
		}
		for i, to := range []string{
			"stra\u00dfee\u0301@localhost/r", "STRA\u00dfE\u00c9@LOCALHOST/r", "\uff53tra\u00dfe\u00e9@localhost/r", "stra\u00dfe\u00e9@localhost./r",
		} {
			id := fmt.Sprintf("s%d", i)
			w.say(mallory, "<message to='%s' id='%s' type='headline'><body>b</body></message>", to, id)
			w.until(mallory)
			got := w.until(strasse)
			if len(got) != 1 || got[0].Get("id") != id {
				t.Errorf("%q does not reach %s: %d stanzas", to, strasse.JID, len(got))
			}
		}
	})
	// The largest address there is, is one.
	w.say(mallory, "<message to='%s@%s/%s' id='largest'><body>b</body></message>", long, domainOf(1023), long)
	back := w.next(mallory, withID("largest"))
	if e := back.Child(stanza.NSClient, "error"); e == nil || e.Child(stanza.NSStanzas, "jid-malformed") != nil {
		t.Errorf("the largest address: %s", back.Bytes(""))
	}
}

// domainOf is a domain of at most n octets.
func domainOf(n int) string {
	label := strings.Repeat("x", 31)
	return strings.Repeat(label+".", min(n, 200)/32) + label
}

// Two devices that want the same name take turns for as long as they like.
func TestReliability26ResourceConflicts(t *testing.T) {
	const turns = 60
	w := start(t, configured([]string{unlimited}, nil))
	w.during(16, func() {
		last := w.bound("mallory", "same")
		for range turns {
			next := w.bound("mallory", "same")
			w.refused(last, "conflict")
			last.drop()
			last = next
		}
		w.must(last.exchange("<iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>", " id='p'"))
	})
	for resource, good := range map[string]bool{
		strings.Repeat("r", 1023): true, strings.Repeat("r", 1024): false, "\U0001F600": true, strings.Repeat("\U0001F600", 256): false, "\u0007": false,
	} {
		if resource == "\u0007" { // may not even be in XML
			continue
		}
		_, err := w.Login(w.ctx, "mallory", resource)
		if (err == nil) != good {
			t.Errorf("a resource of %d octets: %v", len(resource), err)
		}
	}
}

// Who reads and never acknowledges loses the connection, not the messages, and
// costs no more than is allowed.
func TestReliability27NeverAcknowledges(t *testing.T) {
	const unacked, messages = 100, 2000
	w := start(t, configured([]string{unlimited, fmt.Sprintf("resumption: {unacked: %d}", unacked)}, nil))
	lazy := w.bound("lazy", "l")
	w.must(lazy.manage())
	w.must(lazy.exchange("<presence/>", "<presence"))
	writer := w.login("writer", "w")
	w.during(16, func() {
		for i := range messages {
			w.say(writer, "<message to='lazy@localhost' type='chat' id='n%d'><body>b</body></message>", i)
		}
		w.until(writer)
		got, err := lazy.rest()
		if err != nil {
			t.Errorf("it is still connected: %v", err)
		}
		if n := strings.Count(got, "<message "); n > unacked+unacked/2 {
			t.Errorf("it was sent %d messages", n)
		}
	})
	// Another's session cannot be had.
	thief := w.dial()
	_ = w.Account(w.ctx, "thief", secret)
	w.must(thief.auth("thief"))
	w.must(thief.exchange("<resume xmlns='urn:xmpp:sm:3' h='0' previd='"+lazy.id+"'/>", "<failed xmlns='urn:xmpp:sm:3'><item-not-found"))
	// The messages are all there for whoever comes as lazy.
	c := w.login("lazy", "back")
	w.say(c, "<presence/>")
	seen := map[string]bool{}
	w.next(c, func(el *stanza.Element) bool {
		seen[el.Get("id")] = true
		return el.Get("id") == fmt.Sprintf("n%d", messages-1)
	})
	for i := range messages {
		if !seen[fmt.Sprintf("n%d", i)] {
			t.Fatalf("message %d is lost", i)
		}
	}
}

// Who acknowledges what was never sent is cut off (XEP-0198 §4), and of many
// who resume one session at the same time one has it.
func TestReliability27Lies(t *testing.T) {
	const racers, rounds = 6, 5
	w := start(t, configured([]string{unlimited}, nil))
	w.during(8, func() {
		for range rounds {
			liar := w.bound("liar", "l")
			w.must(liar.manage())
			w.must(liar.say("<a xmlns='urn:xmpp:sm:3' h='4000'/>"))
			w.refused(liar, "undefined-condition")
			if !strings.Contains(string(liar.got), "<handled-count-too-high ") {
				t.Errorf("it is told %s", tail(string(liar.got)))
			}
		}
		for range rounds {
			w.race(racers)
		}
	})
}

// race lets so many connections resume one session.
func (w *world) race(racers int) {
	w.Helper()
	first := w.bound("racer", "r")
	w.must(first.manage())
	var all []*peer
	for range racers {
		p := w.dial()
		w.must(p.auth("racer"))
		all = append(all, p)
	}
	first.drop()
	var work sync.WaitGroup
	for _, p := range all {
		work.Go(func() {
			_ = p.say("<resume xmlns='urn:xmpp:sm:3' h='0' previd='" + first.id + "'/>")
			_ = p.fill()
		})
	}
	work.Wait()
	winners := 0
	for _, p := range all {
		_ = p.say("<iq type='get' id='won'><ping xmlns='urn:xmpp:ping'/></iq>") // the others are hung up on, or not bound
		if _, err := p.until("id='won'"); err == nil {
			winners++
		}
		p.drop()
	}
	if winners != 1 {
		w.Errorf("%d connections have the session", winners)
	}
}
