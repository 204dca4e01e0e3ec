package abuse

import (
	"fmt"
	"testing"
	"time"

	"parley/parser/stanza"
	"parley/plugins/plugintest"
)

// Rates of rooms in these tests, and what the offender tries.
const (
	roomRates  = "muc: {messages: {every: 50ms, burst: 20}, presences: {every: 200ms, burst: 10}, entries: {every: 1s, burst: 5}, max_rooms_per_user: 20, rooms_in_memory: 200}"
	roomFlood  = 1500
	roomRounds = 15 // of who talks in the room; within the burst
	theRoom    = "garden@conference.localhost"
)

// garden is a world with a room, in which two people talk and one is a pest.
type garden struct {
	*world
	pest, carol, dave *plugintest.Client
}

func plant(t *testing.T) *garden {
	t.Helper()
	g := &garden{world: start(t, configured([]string{unlimited}, []string{"components:", "  " + roomRates}))}
	g.carol, g.dave, g.pest = g.login("carol", "c"), g.login("dave", "d"), g.login("pest", "p")
	g.enterRoom(g.carol, theRoom, "carol")
	g.say(g.carol, "<iq type='set' id='open' to='%s'><query xmlns='http://jabber.org/protocol/muc#owner'><x xmlns='jabber:x:data' type='submit'/></query></iq>", theRoom)
	g.next(g.carol, withID("open"))
	g.enterRoom(g.dave, theRoom, "dave")
	return g
}

const entering = "<x xmlns='http://jabber.org/protocol/muc'><history maxstanzas='0'/></x>"

// enterRoom returns when the client is in the room.
func (w *world) enterRoom(c *plugintest.Client, room, nick string) {
	w.Helper()
	w.say(c, "<presence to='%s/%s'>%s</presence>", room, nick, entering)
	w.next(c, func(el *stanza.Element) bool { return el.Child(stanza.NSClient, "subject") != nil })
}

// settle lets carol speak in the room, and returns what each of the others gets before
// that, and carol herself: the room has one order, so that nothing of the room's is on
// its way any more. The answer to a ping would not tell, it may come before.
func (g *garden) settle(others ...*plugintest.Client) (before map[*plugintest.Client][]*stanza.Element) {
	g.Helper()
	before = map[*plugintest.Client][]*stanza.Element{}
	id := g.fresh("settle")
	g.say(g.carol, "<message type='groupchat' id='%s' to='%s'><body>so far</body></message>", id, theRoom)
	for _, c := range append(others, g.carol) {
		g.next(c, func(el *stanza.Element) bool {
			if el.Get("id") == id {
				return true
			}
			before[c] = append(before[c], el)
			return false
		})
	}
	return before
}

// talk lets carol speak in the room, and returns how long dave waits. What dave gets
// besides is given to other.
func (g *garden) talk(rounds int, other func(*stanza.Element)) (took []time.Duration) {
	g.Helper()
	for range rounds {
		id, begin := g.fresh("talk"), time.Now()
		g.say(g.carol, "<message type='groupchat' id='%s' to='%s'><body>still here</body></message>", id, theRoom)
		g.next(g.dave, func(el *stanza.Element) bool {
			if el.Get("id") == id && el.Get("type") == "groupchat" {
				return true
			}
			other(el)
			return false
		})
		took = append(took, time.Since(begin))
	}
	return took
}

// suffers floods the room with flood, whose stanzas have the ids f0, f1, …, and asserts
// what the pest, those who talk in the room and the bystanders notice. seen are those
// that dave sees of what came from the pest.
func (g *garden) suffers(limit string, flood func(i int) string, seen func(*stanza.Element) bool) {
	g.Helper()
	before := median(g.talk(roomRounds/3, func(*stanza.Element) {}))
	passed, refused, wrong := 0, 0, ""
	var during []time.Duration
	begin := time.Now()
	g.during(16, func() {
		for i := range roomFlood {
			if i%(roomFlood/roomRounds) == 0 && len(during) < roomRounds {
				during = append(during, g.talk(1, func(el *stanza.Element) {
					if seen(el) {
						passed++
					}
				})...)
			}
			g.say(g.pest, "%s", flood(i))
		}
		for _, el := range g.until(g.pest) {
			if el.Get("type") != "error" {
				continue
			}
			refused++
			if e := stanza.ParseError(el.Child(stanza.NSClient, "error")); e.Condition != stanza.PolicyViolation || e.Type != stanza.Wait || e.Text == "" {
				wrong = string(el.Bytes(stanza.NSClient))
			}
		}
	})
	elapsed := time.Since(begin)
	for _, el := range g.until(g.dave) {
		if seen(el) {
			passed++
		}
	}
	now := median(during)
	g.Logf("%d of %d were refused, %d came through in %v; in the room: median %v before, %v during", refused, roomFlood, passed, elapsed, before, now)
	if wrong != "" {
		g.Errorf("the pest is refused without a reason: %s", wrong)
	}
	if now > slower*max(before, floor) {
		g.Errorf("those in the room wait for %v, %v before", now, before)
	}
	most, every := map[string]int{"messages": 20, "presence": 10, "entry": 5}[limit], map[string]time.Duration{"messages": 50 * time.Millisecond, "presence": 200 * time.Millisecond, "entry": time.Second}[limit]
	if most += int(elapsed/every) + 1; passed > most {
		g.Errorf("%d came through, at most %d should", passed, most)
	}
	if passed == 0 || refused == 0 {
		g.Errorf("%d came through, %d were refused", passed, refused)
	}
	if n := g.metric(`parley_muc_refused_total{limit="` + limit + `"}`); int(n) < refused {
		g.Errorf("%v refusals are counted, there were %d", n, refused)
	}
}

// Who floods a room is refused beyond its rate, with the reason, and the others talk on.
func TestReliability15MessageFlood(t *testing.T) {
	g := plant(t)
	g.enterRoom(g.pest, theRoom, "pest")
	g.suffers("messages", func(i int) string {
		return fmt.Sprintf("<message type='groupchat' id='f%d' to='%s'><body>buy</body></message>", i, theRoom)
	}, func(el *stanza.Element) bool { return el.Get("from") == theRoom+"/pest" && el.Name.Local == "message" })
}

// Who enters and leaves all the time is kept out for a while.
func TestReliability15EntryFlood(t *testing.T) {
	g := plant(t)
	g.suffers("entry", func(i int) string {
		return fmt.Sprintf("<presence id='f%d' to='%s/pest'>%s</presence><presence type='unavailable' to='%s/pest'/>", i, theRoom, entering, theRoom)
	}, func(el *stanza.Element) bool {
		return el.Get("from") == theRoom+"/pest" && el.Name.Local == "presence" && el.Get("type") == ""
	})
}

// Who changes its nickname all the time keeps the last one for a while.
func TestReliability15NickFlood(t *testing.T) {
	g := plant(t)
	g.enterRoom(g.pest, theRoom, "pest")
	g.suffers("presence", func(i int) string {
		return fmt.Sprintf("<presence id='f%d' to='%s/pest%d'/>", i, theRoom, i%200)
	}, func(el *stanza.Element) bool { return el.Name.Local == "presence" && el.Get("type") == "unavailable" })
}

// Who makes rooms without end is told to destroy some; what it has made is bounded.
func TestReliability15RoomFlood(t *testing.T) {
	const rooms, allowed = 300, 20
	g := plant(t)
	made, refused := 0, 0
	g.during(16, func() {
		for i := range rooms {
			g.say(g.pest, "<presence id='f%d' to='r%d@conference.localhost/pest'>%s</presence>", i, i, entering)
		}
		for _, el := range g.until(g.pest) {
			switch {
			case el.Name.Local != "presence":
			case el.Get("type") == "":
				made++
			default:
				refused++
				if e := stanza.ParseError(el.Child(stanza.NSClient, "error")); e.Condition != stanza.ResourceConstraint || e.Text == "" {
					t.Errorf("refused with %v", e)
				}
			}
		}
	})
	if made != allowed || refused != rooms-allowed {
		t.Errorf("%d rooms were made, %d were refused", made, refused)
	}
	if n := g.metric("parley_muc_rooms"); n > allowed+1 {
		t.Errorf("%v rooms are in memory", n)
	}
	g.talk(3, func(*stanza.Element) {}) // the room goes on
}

// What a room gets goes out once for each session in it, and errors lead to nothing:
// neither at rooms, nor at occupants, nor at what is not there.
func TestReliability16RoomsAnswerNoErrors(t *testing.T) {
	g := plant(t)
	g.enterRoom(g.pest, theRoom, "pest")
	g.settle(g.dave, g.pest)
	const refusal = "<error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
	g.during(8, func() {
		for i := range 200 {
			for _, to := range []string{theRoom, theRoom + "/nobody", "none@conference.localhost", "none@conference.localhost/x", "conference.localhost"} {
				g.say(g.pest, "<message type='error' id='e%d' to='%s'>%s</message><presence type='error' to='%s'>%s</presence><iq type='error' id='q%d' to='%s'>%s</iq><iq type='result' id='r%d' to='%s'/>",
					i, to, refusal, to, refusal, i, to, refusal, i, to)
			}
		}
		if back := g.until(g.pest); len(back) > 0 {
			t.Errorf("%d stanzas came back, the first: %s", len(back), back[0].Bytes(stanza.NSClient))
		}
	})
	for c, got := range g.settle(g.dave, g.pest) {
		t.Errorf("%s got %d stanzas, the first: %s", c.JID, len(got), got[0].Bytes(stanza.NSClient))
	}
	g.say(g.pest, "<message type='groupchat' id='once' to='%s'><body>one</body></message>", theRoom)
	g.next(g.pest, withID("once"))
	once := g.settle(g.dave, g.pest)
	for _, c := range []*plugintest.Client{g.carol, g.dave} {
		if got := once[c]; len(got) != 1 || got[0].Get("id") != "once" {
			t.Errorf("%s got %d stanzas for one", c.JID, len(got))
		}
	}
}

// Two clients that answer everything with an error do not start a loop: the room hands
// an occupant's error on to whom it is for, once, and says nothing itself.
func TestReliability16ErrorLoopsThroughRooms(t *testing.T) {
	g := plant(t)
	const refusal = "<error type='cancel'><not-acceptable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
	g.settle(g.dave)
	g.during(8, func() {
		for i := range 20 {
			id := fmt.Sprintf("p%d", i)
			g.say(g.carol, "<message type='chat' id='%s' to='%s/dave'><body>psst</body></message>", id, theRoom)
			g.next(g.dave, withID(id))
			g.say(g.dave, "<message type='error' id='%s' to='%s/carol'>%s</message>", id, theRoom, refusal)
			el := g.next(g.carol, withID(id))
			if el.Get("type") != "error" || el.Get("from") != theRoom+"/dave" {
				t.Errorf("carol got %s", el.Bytes(stanza.NSClient))
			}
		}
	})
	for c, got := range g.settle(g.dave) {
		t.Errorf("%s got more: %s", c.JID, got[0].Bytes(stanza.NSClient))
	}
}
