package sasl

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func newTestThrottle(cfg ThrottleConfig) (*Throttle, *time.Time) {
	now := time.Unix(1_800_000_000, 0)
	cfg.Clock = func() time.Time { return now }
	return NewThrottle(cfg), &now
}

var (
	home  = netip.MustParseAddr("192.0.2.1")
	other = netip.MustParseAddr("192.0.2.2")
)

// Reliability row 8.
func TestThrottleGrowsExponentially(t *testing.T) {
	th, now := newTestThrottle(ThrottleConfig{Free: 2, Base: time.Second, Max: 5 * time.Second, Spray: 100})
	for i, want := range []time.Duration{0, 0, 0, 1, 2, 4, 5, 5} {
		if got := th.Wait("alice", home); got != want*time.Second {
			t.Errorf("after %d failures: %v", i, got)
		}
		th.Fail("alice", home)
		*now = now.Add(time.Minute)
	}
	if th.Wait("alice", other) != 0 || th.Wait("bob", home) != 0 {
		t.Error("a stranger waits")
	}
	th.OK("alice", home)
	if got := th.Wait("alice", home); got != 0 {
		t.Errorf("after success: %v", got)
	}
}

// Many connections at once queue up behind each other; beyond Max the caller refuses.
func TestThrottleParallelAttempts(t *testing.T) {
	th, now := newTestThrottle(ThrottleConfig{Free: 1, Base: 2 * time.Second, Max: 4 * time.Second})
	th.Fail("alice", home)
	th.Fail("alice", home)
	for i, want := range []time.Duration{2, 4, 6, 8, 8, 8} {
		if got := th.Wait("alice", home); got != want*time.Second {
			t.Errorf("attempt %d: %v", i, got)
		}
	}
	*now = now.Add(8 * time.Second)
	if got := th.Wait("alice", home); got != 2*time.Second {
		t.Errorf("when the queue is gone: %v", got)
	}
}

func TestThrottleForgets(t *testing.T) {
	th, now := newTestThrottle(ThrottleConfig{Free: 1, Forget: time.Minute})
	th.Fail("alice", home)
	th.Fail("alice", home)
	*now = now.Add(59 * time.Second)
	if th.Wait("alice", home) == 0 {
		t.Error("forgotten too early")
	}
	*now = now.Add(time.Second)
	if th.Wait("alice", home) != 0 || th.Len() != 0 {
		t.Error("not forgotten")
	}
}

// One address against many accounts; its own successes do not clear it, and an IPv6 host is its /64.
func TestThrottleSpraying(t *testing.T) {
	th, _ := newTestThrottle(ThrottleConfig{Spray: 10, Base: time.Second})
	at := func(i int) netip.Addr { return netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i+1)) }
	for i := range 11 {
		if got := th.Wait(fmt.Sprint(i), at(i)); got != 0 {
			t.Fatalf("attempt %d: %v", i, got)
		}
		th.Fail(fmt.Sprint(i), at(i))
		th.OK("mallory", at(i))
	}
	if got := th.Wait("alice", at(99)); got != time.Second {
		t.Errorf("got %v", got)
	}
	if th.Wait("alice", netip.MustParseAddr("2001:db8:0:1::1")) != 0 {
		t.Error("the neighbour waits")
	}
	for range 11 {
		th.Fail("x", netip.MustParseAddr("::ffff:192.0.2.1"))
	}
	if th.Wait("y", home) == 0 {
		t.Error("a mapped IPv4 address is another address")
	}
}

func TestThrottleIsBounded(t *testing.T) {
	th, _ := newTestThrottle(ThrottleConfig{Entries: 8, Free: 1})
	for i := range 1000 {
		th.Fail(fmt.Sprint(i), home)
		if th.Len() > 8 {
			t.Fatalf("%d entries", th.Len())
		}
	}
	// The address's own entry is used by every attempt and so outlives the flood.
	if th.Wait("alice", home) == 0 {
		t.Error("a flood of names cleared the address")
	}
}

func TestThrottleLockout(t *testing.T) {
	var told []Lockout
	var th *Throttle
	th, now := newTestThrottle(ThrottleConfig{Lock: 3, Forget: time.Minute, Lockout: func(l Lockout) {
		told = append(told, l)
		th.Len() // no lock is held
	}})
	for range 7 {
		th.Fail("alice", home)
	}
	th.Fail("bob", home)
	if len(told) != 1 || told[0] != (Lockout{Account: "alice", Addr: home, Failures: 3}) {
		t.Fatalf("told %+v", told)
	}
	*now = now.Add(time.Hour)
	for range 3 {
		th.Fail("alice", home)
	}
	if len(told) != 2 {
		t.Errorf("a new series: told %d times", len(told))
	}
}
