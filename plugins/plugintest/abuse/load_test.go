package abuse

import (
	"crypto/tls"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/plugintest"
)

// Who does not read is cut off when an outbox is full; what he did not take
// waits for him in the archive, and the one who writes to him goes on.
func TestReliability05SlowReader(t *testing.T) {
	const messages, size = 250, 64 << 10
	w := start(t, configured([]string{unlimited, "outbox: 256kB"}, nil))
	lazy, err := dialPeer(w.Door("c2s"))
	w.must(err)
	t.Cleanup(lazy.drop)
	w.account("lazy", secret)
	w.must(lazy.auth("lazy"))
	w.must(lazy.bind("l"))
	w.must(lazy.exchange("<presence/>", "<presence"))
	writer := w.login("writer", "w")
	w.during(16, func() {
		body := strings.Repeat("x", size)
		for i := range messages {
			w.say(writer, "<message to='lazy@localhost' type='chat' id='s%d'><body>%s</body></message>", i, body)
		}
		w.until(writer)
	})
	if n := w.metric("parley_outbox_overflows_total"); n < 1 {
		t.Errorf("%v clients were cut off", n)
	}
	got, err := lazy.rest()
	if err != nil {
		t.Errorf("the slow reader is still connected: %v", err)
	}
	if n := strings.Count(got, "<message "); n >= messages {
		t.Errorf("the slow reader got all %d messages", n)
	}
	// Nothing is lost: everything comes when the client returns and reads.
	c := w.login("lazy", "back")
	w.say(c, "<presence/>")
	seen := map[string]bool{}
	for i := range messages {
		id := "s" + strconv.Itoa(i)
		if strings.Contains(got, "id='"+id+"'") {
			seen[id] = true
		}
	}
	w.next(c, func(el *stanza.Element) bool {
		seen[el.Get("id")] = true
		return el.Get("id") == "s"+strconv.Itoa(messages-1)
	})
	for i := range messages {
		if !seen["s"+strconv.Itoa(i)] {
			t.Errorf("message %d is lost", i)
		}
	}
}

// recorder is a clock that goes forward at once for what guessing costs, and remembers
// it.
type recorder struct {
	plugins.SystemClock
	mu    sync.Mutex
	waits []time.Duration
	ahead time.Duration
}

func (r *recorder) Now() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.SystemClock.Now().Add(r.ahead)
}

func (r *recorder) AfterFunc(d time.Duration, f func()) func() bool {
	if near := d.Round(time.Second); near >= guessBase && near <= guessMax && (d-near).Abs() < time.Second/10 {
		r.mu.Lock()
		r.waits, r.ahead = append(r.waits, near), r.ahead+d
		r.mu.Unlock()
		d = 0
	}
	return r.SystemClock.AfterFunc(d, f)
}

// Between these nothing else in the house waits.
const guessBase, guessMax = 100 * time.Second, 800 * time.Second

// Guessing gets slower with each wrong password, of an account that exists as
// of one that does not, and of nobody else.
func TestReliability08Guessing(t *testing.T) {
	for _, user := range []string{"victim", "nobody"} {
		t.Run(user, func(t *testing.T) {
			clock := &recorder{}
			w := startWith(t, plugintest.Options{Clock: clock, Config: "servers: {streamer: {timeouts: {idle: 0s}, rate: {stanzas: 0, bytes: 0}, components: {accounts: {iterations: 4096, throttle: {free: 1, base: 100s, max: 800s, forget: 10000s}}}}}"})
			w.account("victim", secret)
			w.during(16, func() {
				for range 2 {
					p := w.dial()
					w.must(p.exchange(header, "</stream:features>"))
					for range 3 {
						w.must(p.exchange(plain(user, "guess"), "<not-authorized/></failure>"))
					}
					p.drop()
				}
			})
			clock.mu.Lock()
			defer clock.mu.Unlock()
			if got, want := fmt.Sprint(clock.waits), "[1m40s 3m20s 6m40s 13m20s]"; got != want {
				t.Errorf("guesses waited for %s, want %s", got, want)
			}
		})
	}
}

// Passwords that cost much to check cost the one who sends them, in turn.
func TestReliability09ExpensivePasswords(t *testing.T) {
	const guessers, guesses = 16, 4
	w := start(t, strings.Replace(configured([]string{unlimited, "limits: {auth_tries: 10}"}, nil), "4096", "50000", 1))
	w.account("victim", secret)
	w.during(32, func() {
		var work sync.WaitGroup
		for i := range guessers {
			work.Go(func() {
				p := w.dial()
				if err := p.exchange(header, "</stream:features>"); err != nil {
					t.Error(err)
					return
				}
				for j := range guesses {
					if err := p.exchange(plain("victim", fmt.Sprintf("guess %d %d", i, j)), "</failure>"); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		work.Wait()
		p := w.dial() // longer than any password may be
		w.must(p.exchange(header, "</stream:features>"))
		w.must(p.exchange(plain("victim", strings.Repeat("x", 4000)), "</failure>"))
	})
}

// Connections beyond the total are refused; those that are there go on, and
// when the others leave there is room again.
func TestReliability10ConnectionFlood(t *testing.T) {
	const total, flood = 60, 300
	w := start(t, configured([]string{unlimited, fmt.Sprintf("connections: {total: %d}", total)}, nil))
	var held []*peer
	refused := 0
	w.during(16, func() {
		for range flood {
			p, err := dialPeer(w.Door("c2s"))
			w.must(err)
			if err := p.exchange(header, "</stream:features>"); err != nil {
				refused++
				p.drop()
				continue
			}
			held = append(held, p)
		}
	})
	if len(held) != total-2 { // the bystanders have two
		t.Errorf("%d connections of %d were let in", len(held), total)
	}
	if refused != flood-len(held) {
		t.Errorf("%d refused", refused)
	}
	for _, p := range held {
		p.hangUp()
		if _, err := p.rest(); err != nil {
			t.Error(err)
		}
		p.drop()
	}
	w.login("carol", "late")
}

// Handshakes that are begun and not gone on with count as connections, and end.
func TestReliability10HandshakeFlood(t *testing.T) {
	const total, flood = 60, 300
	w := start(t, configured([]string{unlimited, "timeouts: {handshake: 1s, login: 2s}", fmt.Sprintf("connections: {total: %d}", total)}, nil))
	w.during(32, func() {
		var held []net.Conn
		for range flood {
			c, err := net.Dial("tcp", w.Door("c2s-tls"))
			w.must(err)
			_ = c.SetDeadline(time.Now().Add(patience))
			_, _ = c.Write([]byte("\x16\x03\x01\x02\x00\x01"))
			held = append(held, c)
		}
		for _, c := range held { // each is closed by the server
			var b [64]byte
			for err := error(nil); err == nil; {
				if _, err = c.Read(b[:]); err != nil && isTimeout(err) {
					t.Error("a handshake that does not go on is not ended")
				}
			}
			_ = c.Close()
		}
	})
	// A handshake that has ended makes room, so some of those that come late get in.
	if n := w.log.turnedAway(); n < flood/2 {
		t.Errorf("%d of %d handshakes were refused", n, flood)
	}
	c, err := tls.Dial("tcp", w.Door("c2s-tls"), &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the test's own server
	w.must(err)
	_ = c.Close()
}

func isTimeout(err error) bool {
	ne, ok := err.(net.Error)
	return ok && ne.Timeout()
}

// When everybody who knows everybody comes back at the same time, again and
// again, others do not wait for them.
func TestReliability14PresenceStorm(t *testing.T) {
	const people, storms = 14, 4
	w := start(t, configured([]string{unlimited}, nil))
	var crowd []*plugintest.Client
	name := func(i int) string { return "p" + strconv.Itoa(i) }
	for i := range people {
		crowd = append(crowd, w.login(name(i), "r"))
	}
	for i, c := range crowd {
		for j := range crowd {
			if i != j {
				w.say(c, "<presence type='subscribed' to='%s@localhost'/><presence type='subscribe' to='%s@localhost'/>", name(j), name(j))
			}
		}
		w.until(c)
	}
	w.during(32, func() {
		for range storms {
			var work sync.WaitGroup
			for i, c := range crowd {
				work.Go(func() {
					c.Close()
					crowd[i] = w.login(name(i), "r")
					w.say(crowd[i], "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq><presence/>")
				})
			}
			work.Wait()
			for _, c := range crowd { // everybody sees everybody
				seen := map[string]bool{}
				w.next(c, func(el *stanza.Element) bool {
					if el.Name.Local == "presence" {
						seen[el.Get("from")] = el.Get("type") == ""
					}
					n := 0
					for _, here := range seen {
						if here {
							n++
						}
					}
					return n == people
				})
			}
		}
	})
}

// One stanza becomes at most one for each device, and no error meets another.
func TestReliability16Amplification(t *testing.T) {
	const devices = 10
	w := start(t, "servers:\n  streamer:\n    "+unlimited+"\n    components:\n      "+cheap+"\n")
	var all []*plugintest.Client
	for i := range devices {
		c := w.login("many", "r"+strconv.Itoa(i))
		w.say(c, "<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq><presence/>")
		w.next(c, withID("c"))
		all = append(all, c)
	}
	for _, c := range all { // the presence of the others is in
		w.until(c)
	}
	if c, err := w.Login(w.ctx, "many", "one too many"); err == nil {
		t.Errorf("%s is session %d of its account", c.JID, devices+1)
	}
	mallory := w.login("mallory", "m")
	w.during(32, func() {
		w.say(mallory, "<message to='many@localhost' type='chat' id='x'><body>b</body></message>"+
			"<message to='%s' type='chat' id='x'><body>b</body></message>"+
			"<message to='many@localhost' type='error' id='e'><error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>"+
			"<message to='nobody@localhost' type='error' id='e'><error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></message>"+
			"<iq to='nobody@localhost/r' type='error' id='e'><error type='cancel'><gone xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"+
			"<iq to='elsewhere.example' type='result' id='e'/>"+
			"<presence to='nobody@localhost' type='error' id='e'/>", all[0].JID)
		if back := w.until(mallory); len(back) != 0 {
			t.Errorf("an error or a result was answered: %s", back[0].Bytes(""))
		}
	})
	for _, c := range all {
		copies := 0
		for _, el := range w.until(c) {
			if el.Name.Local != "message" {
				continue
			}
			copies++
			if f := el.Child("urn:xmpp:carbons:2", "received"); f != nil {
				inner := f.Child("urn:xmpp:forward:0", "forwarded").Child(stanza.NSClient, "message")
				if inner.Child("urn:xmpp:carbons:2", "received") != nil || inner.Child("urn:xmpp:carbons:2", "sent") != nil {
					t.Errorf("%s got a carbon of a carbon", c.JID)
				}
			}
		}
		if copies > 2 {
			t.Errorf("%s got %d copies of two messages", c.JID, copies)
		}
	}
}

// Nobody reads an archive faster than in pages, and no more of them at a time
// than an account may have.
func TestReliability17Scraping(t *testing.T) {
	const stored, page, readers, queries = 300, 100, 10, 20
	w := start(t, configured([]string{unlimited}, []string{"components: {archive: {max_page: " + strconv.Itoa(page) + "}}"}))
	c := w.login("mallory", "writer")
	w.login("sink", "s") // what nobody is there to get is refused, and archived nowhere
	for i := range stored {
		w.say(c, "<message to='sink@localhost' type='chat' id='a%d'><body>b</body></message>", i)
	}
	w.until(c)
	w.during(32, func() {
		var work sync.WaitGroup
		for i := range readers {
			r := w.login("mallory", "reader"+strconv.Itoa(i))
			work.Go(func() {
				for j := range queries {
					w.scrape(r, strconv.Itoa(j), page)
				}
			})
		}
		work.Wait()
	})
}

// scrape asks for as much as there is and asserts that it gets a page at most.
func (w *world) scrape(r *plugintest.Client, id string, page int) {
	w.say(r, "<iq type='set' id='%s'><query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><max>1000000</max></set></query></iq>", id)
	results := 0
	end, err := w.tryNext(r, func(el *stanza.Element) bool {
		if el.Child("urn:xmpp:mam:2", "result") != nil {
			results++
		}
		return el.Get("id") == id
	})
	if err != nil {
		w.Error(err)
		return
	}
	switch e := end.Child(stanza.NSClient, "error"); {
	case e == nil && (results == 0 || results > page):
		w.Errorf("%d results in a page of %d", results, page)
	case e != nil && e.Child(stanza.NSStanzas, "resource-constraint") == nil:
		w.Errorf("%s", end.Bytes(""))
	}
}
