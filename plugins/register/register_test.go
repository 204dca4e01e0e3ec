package register

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/router/sessions"
)

func TestReliability25MixedScripts(t *testing.T) {
	for name, want := range map[string]bool{
		"romeo":      false,
		"romeo-42_x": false,
		"жизнь":      false,
		"pаypal":     true, // Cyrillic а
		"αlpha":      true,
		"山田taro":     false,
		"カタカナひらがな漢字": false,
		"李lei":       false,
		"김kim":       false,
		"김ひ":         true,
		"李ж":         true,
		"josé":       false,
		"jose\u0301": false, // a combining mark belongs to its letter
	} {
		if mixed(name) != want {
			t.Errorf("%q: mixed %v", name, !want)
		}
	}
}

type clock struct {
	plugins.SystemClock
	now time.Time
}

func (c *clock) Now() time.Time { return c.now }

func TestReliability11PerAddress(t *testing.T) {
	c := &clock{now: time.Unix(1e9, 0)}
	l := newLimiter(2, c)
	tries := func(addr string) (n int) {
		for range 5 {
			if l.allow(netip.MustParseAddr(addr)) {
				n++
			}
		}
		return n
	}
	for _, row := range []struct {
		addr string
		want int
	}{
		{"192.0.2.1", 2}, {"192.0.2.1", 0}, {"::ffff:192.0.2.1", 0}, {"192.0.2.2", 2},
		{"2001:db8::1", 2}, {"2001:db8::2", 0}, {"2001:db8:0:1::1", 2},
	} {
		if got := tries(row.addr); got != row.want {
			t.Errorf("%s: %d of 5, want %d", row.addr, got, row.want)
		}
	}
	c.now = c.now.Add(30 * time.Minute)
	if got := tries("192.0.2.1"); got != 1 {
		t.Errorf("half an hour later: %d", got)
	}
	var off *limiter
	if !off.allow(netip.MustParseAddr("192.0.2.1")) {
		t.Error("no limit refuses")
	}
}

func TestLimitIsBounded(t *testing.T) {
	l := newLimiter(1, &clock{now: time.Unix(1e9, 0)})
	for i := range maxAddresses + 100 {
		l.allow(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	if len(l.known) != maxAddresses || l.recent.Len() != maxAddresses {
		t.Fatalf("%d, %d addresses", len(l.known), l.recent.Len())
	}
	if l.allow(netip.AddrFrom4([4]byte{10, 0, byte(maxAddresses >> 8), 1})) {
		t.Fatal("one that tried lately was forgotten")
	}
}

func TestNames(t *testing.T) {
	own := jid.MustParse("romeo@montague.example")
	for name, want := range map[string]bool{
		"romeo": true, "Romeo": true, "romeo@montague.example": true, "romeo@capulet.example": false, "juliet": false, "": false, "romeo@montague.example/x": false,
	} {
		if names(name, own) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

// XEP-0077 §3.3: no password over a wire that others read.
func TestPrivate(t *testing.T) {
	for _, row := range []struct {
		secure bool
		remote string
		want   bool
	}{
		{true, "192.0.2.1:999", true}, {false, "192.0.2.1:999", false}, {false, "127.0.0.1:999", true}, {false, "[::1]:999", true}, {false, "pipe", false},
	} {
		e := &sessions.Entry{State: sessions.State{Secure: row.secure, Remote: row.remote}}
		if private(e) != row.want {
			t.Error(fmt.Sprint(row))
		}
	}
}
