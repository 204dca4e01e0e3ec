package abuse

import (
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// attack is what one connection does, and how it ends.
type attack struct {
	name    string
	bytes   string   // sent at once; $BOB is a bystander
	ends    []string // stream errors, one of which it gets
	unbound bool     // before login
}

// deep is n elements, each inside of the one before.
func deep(n int) string { return strings.Repeat("<a>", n) }

// attributes are n of them.
func attributes(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, " a%d=''", i)
	}
	return b.String()
}

// entities is the bomb of billion laughs.
const entities = "<!DOCTYPE lolz [<!ENTITY a 'lol'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;'><!ENTITY c '&b;&b;&b;&b;&b;&b;&b;&b;'>]>"

// sendAll runs each attack on several connections at the same time, and asserts what
// during does. What is sent is ready before that: its memory is not the server's.
func (w *world) sendAll(megabytes int, attacks []attack) {
	w.Helper()
	_ = w.Account(w.ctx, "mallory", secret)
	what := make([][]byte, len(attacks))
	for i, a := range attacks {
		what[i] = []byte(strings.ReplaceAll(a.bytes, "$BOB", w.bob.JID.String()))
	}
	w.during(megabytes, func() {
		var work sync.WaitGroup
		for i, a := range attacks {
			for j := range 3 {
				work.Go(func() { w.send(a, what[i], strconv.Itoa(i)+"-"+strconv.Itoa(j)) })
			}
		}
		work.Wait()
	})
}

// send runs an attack on a connection of its own.
func (w *world) send(a attack, what []byte, resource string) {
	p, err := dialPeer(w.Door("c2s"))
	if err != nil {
		w.Error(err)
		return
	}
	defer p.drop()
	if !a.unbound {
		if err = p.auth("mallory"); err == nil {
			err = p.bind(resource)
		}
	}
	if err != nil {
		w.Errorf("%s: %v", a.name, err)
		return
	}
	_, _ = p.conn.Write(what) // it may end before everything is written
	w.ended(a, p)
}

// ended asserts that the server ends the stream with one of the attack's errors.
func (w *world) ended(a attack, p *peer) {
	got, err := p.rest()
	if err != nil {
		w.Errorf("%s: the stream does not end: %v after %q", a.name, err, tail(got))
		return
	}
	w.wellFormed(p)
	for _, c := range a.ends {
		if strings.Contains(got, "<stream:error><"+c+" ") && strings.HasSuffix(got, "</stream:stream>") {
			return
		}
	}
	w.Errorf("%s: expected <%s/> and the stream's end, got %q", a.name, strings.Join(a.ends, "/> or <"), tail(got))
}

// A bomb ends its own stream while it is read, whatever its size.
func TestReliability01XMLBombs(t *testing.T) {
	w := start(t, configured([]string{unlimited}, nil))
	restricted := []string{"restricted-xml", "not-well-formed"}
	w.sendAll(16, []attack{
		{"entities", entities + header, restricted, true},
		{"DTD", "<!DOCTYPE stream:stream SYSTEM 'http://localhost/'>" + header, restricted, true},
		{"depth before login", header + deep(10_000), []string{"policy-violation"}, true},
		{"attributes before login", header + "<a" + attributes(1000) + "/>", []string{"policy-violation"}, true},
		{"size before login", header + "<auth xmlns='" + nsSASL + "'>" + strings.Repeat("A", 1<<20) + "</auth>", []string{"policy-violation"}, true},
		{"entities in a session", entities, restricted, false},
		{"an entity", "<message><body>&lol;</body></message>", restricted, false},
		{"a processing instruction", "<?php ?>", restricted, false},
		{"a comment", "<message><!-- --></message>", restricted, false},
		{"depth", "<message to='$BOB'>" + deep(100_000), []string{"policy-violation"}, false},
		{"attributes", "<message to='$BOB'><a" + attributes(10_000) + "/></message>", []string{"policy-violation"}, false},
		{"size", "<message to='$BOB'><body>" + strings.Repeat("lol", 1<<20) + "</body></message>", []string{"policy-violation"}, false},
	})
}

// What never ends is given a limit in bytes and one in time.
func TestReliability02Endless(t *testing.T) {
	w := start(t, configured([]string{unlimited, "timeouts: {login: 3s, element: 1s}"}, nil))
	long := strings.Repeat("x", 1<<20)
	w.sendAll(16, []attack{
		{"a name without end", header + "<" + long, []string{"policy-violation"}, true},
		{"an attribute without end", header + "<a b='" + long, []string{"policy-violation"}, true},
		{"white space in a tag", "<message" + strings.Repeat(" ", 1<<20), []string{"policy-violation"}, false},
		{"text without end", "<message><body>" + long, []string{"policy-violation"}, false},
		{"silence before the header", "", []string{"connection-timeout"}, true},
		{"silence before login", header, []string{"connection-timeout"}, true},
		{"an element that stops", "<message to='$BOB'><body>and then", []string{"connection-timeout"}, false},
	})
}

// What is no XML reaches nobody else.
func TestReliability03IllFormed(t *testing.T) {
	w := start(t, configured([]string{unlimited}, nil))
	message := func(inside string) string { return "<message to='$BOB' id='ill'><body>" + inside + "</body></message>" }
	bad := []string{"not-well-formed", "bad-format", "bad-namespace-prefix"}
	w.sendAll(16, []attack{
		{"overlong", message("\xc0\xaf"), bad, false},
		{"truncated", message("\xe2\x82"), bad, false},
		{"a surrogate", message("\xed\xa0\x80"), bad, false},
		{"beyond Unicode", message("\xf5\x80\x80\x80"), bad, false},
		{"NUL", message("\x00"), bad, false},
		{"NUL by number", message("&#0;"), bad, false},
		{"a surrogate by number", message("&#xD800;"), bad, false},
		{"a noncharacter", message("\xef\xbf\xbf"), bad, false},
		{"Latin-1", message("\xe4\xf6\xfc"), bad, false},
		{"an attribute twice", "<message to='$BOB' id='ill' id='ill'/>", bad, false},
		{"the same attribute by two prefixes", "<message to='$BOB' id='ill' xmlns:a='u' xmlns:b='u' a:x='1' b:x='2'/>", bad, false},
		{"a prefix that is not declared", "<message to='$BOB' id='ill'><a:b/></message>", bad, false},
		{"tags that do not match", "<message to='$BOB' id='ill'></Message>", bad, false},
		{"a less-than sign in a value", "<message to='$BOB' id='<ill'/>", bad, false},
	})
	for _, el := range w.until(w.bob) {
		if el.Get("id") == "ill" {
			t.Errorf("bob got %s", el.Bytes(""))
		}
	}
}

// Somebody who floods is read more slowly; what he has sent is delivered, and
// nobody else waits.
func TestReliability04StanzaFlood(t *testing.T) {
	const rate, burst, excess = 200, 200, 400
	w := start(t, configured([]string{fmt.Sprintf("rate: {stanzas: %d, bytes: 0, burst: %d}", rate, burst/rate)}, nil))
	victim := w.login("victim", "v")
	p := w.bound("mallory", "m")
	w.during(32, func() {
		var flood sync.WaitGroup
		flood.Go(func() {
			one := "<message to='" + victim.JID.String() + "' type='headline' id='f'><body>" + strings.Repeat("x", 500) + "</body></message>"
			for p.say(strings.Repeat(one, 50)) == nil {
			}
		})
		begin := time.Now()
		for range burst + excess { // what had to wait comes as well
			w.next(victim, withID("f"))
		}
		if took := time.Since(begin); took < excess*time.Second/rate/2 {
			t.Errorf("%d stanzas were read in %v", burst+excess, took)
		}
		p.drop()
		flood.Wait()
	})
}

// Who floods from many sessions at once is no faster for it, and one that goes
// on and on is disconnected.
func TestReliability04FloodFromManySessions(t *testing.T) {
	const rate, size, sessions, measured = 1 << 20, 10_000, 6, 600
	w := start(t, configured([]string{fmt.Sprintf("rate: {stanzas: 0, bytes: %d, burst: 1, account: 2, patience: 2s}", rate)}, nil))
	victim := w.login("victim", "v")
	w.during(32, func() {
		var floods sync.WaitGroup
		for i := range sessions {
			p := w.bound("mallory", strconv.Itoa(i))
			floods.Go(func() {
				one := "<message to='" + victim.JID.String() + "' type='headline' id='f'><body>" + strings.Repeat("x", size) + "</body></message>"
				for p.say(one) == nil {
				}
				w.ended(attack{name: "a flood", ends: []string{"policy-violation"}}, p)
				p.drop()
			})
		}
		begin := time.Now()
		for range measured {
			w.next(victim, withID("f"))
		}
		if took := time.Since(begin); took < (measured*size-2*rate)*time.Second/(2*rate)/2 {
			t.Errorf("%d stanzas of one account were read in %v", measured, took)
		}
		floods.Wait()
	})
}
