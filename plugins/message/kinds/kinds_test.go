package kinds

import (
	"testing"

	"parley/parser/stanza"
)

// TestKinds is the table of what is stored (rules 43, 71; XEP-0313 §6.1.1),
// copied (rule 60; XEP-0280 §6.1) and dropped without a word.
func TestKinds(t *testing.T) {
	const (
		body    = "<body>b</body>"
		typing  = "<composing xmlns='http://jabber.org/protocol/chatstates'/>"
		receipt = "<received xmlns='urn:xmpp:receipts' id='1'/>"
		marker  = "<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>"
		noStore = "<no-store xmlns='urn:xmpp:hints'/>"
		store   = "<store xmlns='urn:xmpp:hints'/>"
		room    = "<x xmlns='http://jabber.org/protocol/muc#user'/>"
		invite  = "<x xmlns='http://jabber.org/protocol/muc#user'><invite to='a@b'/></x>"
		private = "<private xmlns='urn:xmpp:carbons:2'/>"
		noCopy  = "<no-copy xmlns='urn:xmpp:hints'/>"
		carbon  = "<received xmlns='urn:xmpp:carbons:2'/>"
		omemo   = "<encrypted xmlns='urn:xmpp:omemo:2'/>"
		call    = "<propose xmlns='urn:xmpp:jingle-message:0' id='1'/>"
		other   = "<x xmlns='urn:example'/>"
	)
	for _, c := range []struct {
		typ, content                    string
		lasting, fleeting, sent, gotten bool
	}{
		{"chat", body, true, false, true, true},
		{"", body, true, false, true, true},
		{"normal", body, true, false, true, true},
		{"unheard-of", body, true, false, true, true},
		{"headline", body, false, false, false, false},
		{"groupchat", body, false, false, false, false},
		{"error", body, false, false, false, false},
		{"chat", typing, false, true, true, true},
		{"", typing, false, true, true, true},
		{"chat", typing + body, true, false, true, true},
		{"chat", typing + noStore, false, true, true, true},
		{"chat", body + noStore, false, false, true, true},
		{"chat", body + noStore + store, false, false, true, true},
		{"chat", other, false, false, true, true},
		{"", other, false, false, false, false},
		{"", other + store, true, false, false, false},
		{"", receipt, true, false, true, true},
		{"", marker, true, false, true, true},
		{"chat", omemo, true, false, true, true},
		{"chat", call, true, false, true, true},
		{"chat", body + room, true, false, true, false},
		{"", invite, true, false, true, true},
		{"", "<x xmlns='jabber:x:conference' jid='r@m'/>", true, false, true, true},
		{"chat", body + private, true, false, false, false},
		{"chat", body + noCopy, true, false, false, false},
		{"chat", carbon, false, false, false, false},
	} {
		st, err := stanza.Parse([]byte("<message type='"+c.typ+"'>"+c.content+"</message>"), stanza.NSClient, nil)
		if err != nil {
			t.Fatal(err)
		}
		k := Of(st)
		if k.Lasting() != c.lasting || k.Fleeting() != c.fleeting || k.Copied(Sent) != c.sent || k.Copied(Received) != c.gotten {
			t.Errorf("type %q %s: lasting %v, fleeting %v, copied %v %v", c.typ, c.content, k.Lasting(), k.Fleeting(), k.Copied(Sent), k.Copied(Received))
		}
	}
}
