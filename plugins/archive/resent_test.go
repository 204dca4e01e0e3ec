package archive

import (
	"strings"
	"testing"

	"parley/parser/stanza"
	"parley/plugins/message/kinds"
)

// What is sent again while the first commit is under way shares its id: it is
// stored once, whichever of the commits comes through.
func TestSentAgainWhileItIsBeingStored(t *testing.T) {
	k := resentKey{1, 2}
	for name, c := range map[string]struct {
		first, second bool
		want          int64
	}{
		"both":   {true, true, 7},
		"first":  {true, false, 7},
		"second": {false, true, 7},
		"none":   {false, false, -7},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := newResent()
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := r.underWay(k); ok {
				t.Fatal("under way before it has begun")
			}
			if id := r.begin(k, 7); id != 7 {
				t.Fatalf("id %d", id)
			}
			if id, ok := r.underWay(k); !ok || id != 7 {
				t.Fatalf("the second one gets %d, %v", id, ok)
			}
			counted := r.landed(k, c.first)
			if _, ok := r.underWay(k); !ok {
				t.Fatal("landed with one still under way")
			}
			if r.landed(k, c.second) == counted && c.want > 0 {
				t.Errorf("both count, or none: %v", counted)
			}
			r.landed(k, false) // of the look just now
			if id, _ := r.seen.GetIfPresent(k); id != c.want {
				t.Errorf("remembers %d, want %d", id, c.want)
			}
			if len(r.flying) > 0 {
				t.Error("kept for ever")
			}
		})
	}
}

// Two that begin at the same moment share the first one's id.
func TestTwoBeginAtOnce(t *testing.T) {
	r, err := newResent()
	if err != nil {
		t.Fatal(err)
	}
	k := resentKey{1, 2}
	if a, b := r.begin(k, 7), r.begin(k, 8); a != 7 || b != 7 {
		t.Errorf("%d and %d", a, b)
	}
}

// What this process could not store another one may have stored since.
func TestFoundElsewhereAfterItFailedHere(t *testing.T) {
	for name, c := range map[string]struct{ known, want int64 }{
		"nothing":         {0, 7},
		"refused here":    {-5, 7},
		"refused, there":  {-7, -7},
		"stored, a newer": {9, 9},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := newResent()
			if err != nil {
				t.Fatal(err)
			}
			k := resentKey{1, 2}
			if c.known != 0 {
				r.seen.Set(k, c.known)
			}
			r.found(k, 7)
			if id, _ := r.seen.GetIfPresent(k); id != c.want {
				t.Errorf("remembers %d, want %d", id, c.want)
			}
		})
	}
}

// TestWhatIsTheSameMessage: the same ids with something else to say are another
// message; when it was sent, hints and what we write into it are none of that. What
// the archive holds is known again when it comes (recall).
func TestWhatIsTheSameMessage(t *testing.T) {
	r, err := newResent()
	if err != nil {
		t.Fatal(err)
	}
	const ids = "<origin-id xmlns='urn:xmpp:sid:0' id='1'/>"
	o := &owner{jid: juliet}
	key := func(raw string) resentKey {
		t.Helper()
		st, err := stanza.Parse([]byte(raw), stanza.NSClient, nil)
		if err != nil {
			t.Fatalf("%s: %v", raw, err)
		}
		k, ok := r.key(o, st)
		if !ok {
			t.Fatalf("%s has no origin-id", raw)
		}
		edits := st.StampForwarded()
		for _, c := range st.Children {
			if c.Name.Space == stanza.NSStanzaID && c.Name.Local == "stanza-id" || kinds.IsWrapper(c.Name) {
				edits.Cut = append(edits.Cut, c.Span)
			}
		}
		kept, err := stanza.Parse(edits.Render(nil, st.Raw), stanza.NSClient, nil)
		if err != nil {
			t.Fatal(err)
		}
		if again, _ := r.key(o, kept); again != k {
			t.Errorf("%s is not known again in the archive", raw)
		}
		return k
	}
	message := func(children string) string {
		return "<message from='romeo@example.net/a' to='juliet@example.net' type='chat' id='1'>" + children + "</message>"
	}
	first := key(message("<body>a</body>" + ids))
	for children, same := range map[string]bool{
		ids + "<body>a</body>": true,
		"<body>a</body>" + ids + "<delay xmlns='urn:xmpp:delay' stamp='2030-01-01T00:00:00Z'/>":       true,
		"<body>a</body>" + ids + "<stanza-id xmlns='urn:xmpp:sid:0' by='juliet@example.net' id='x'/>": true,
		"<body>a</body><active xmlns='http://jabber.org/protocol/chatstates'/>" + ids:                 true,
		"<body>a</body><store xmlns='urn:xmpp:hints'/><private xmlns='urn:xmpp:carbons:2'/>" + ids:    true,
		"<sent xmlns='urn:xmpp:carbons:2'/><result xmlns='urn:xmpp:mam:2'/><body>a</body>" + ids:      true,
		"<body xmlns='jabber:client'>a</body>" + ids:                                                  true,
		"<body>b</body>" + ids:                                                                     false,
		"<body xml:lang='it'>a</body>" + ids:                                                       false,
		"<subject>s</subject><body>a</body>" + ids:                                                 false,
		"<body>a</body><replace xmlns='urn:xmpp:message-correct:0' id='0'/>" + ids:                 false,
		"<body>a</body><encrypted xmlns='urn:xmpp:omemo:2'><payload>1</payload></encrypted>" + ids: false,
		"<body>a</body><anything xmlns='urn:example'/>" + ids:                                      false,
		"<body>a</body><x:anything xmlns:x='urn:example'/>" + ids:                                  false,
		"<received xmlns='urn:xmpp:receipts' id='9'/>" + ids:                                       false,
	} {
		if got := key(message(children)) == first; got != same {
			t.Errorf("%s: the same message: %v", children, got)
		}
	}
	web := strings.Replace(message("<body xmlns='jabber:client'>a</body>"+ids), "<message", "<message xmlns='jabber:client'", 1) // RFC 7395 §3.3.3
	if key(web) != first {
		t.Error("another one over a WebSocket")
	}
}
