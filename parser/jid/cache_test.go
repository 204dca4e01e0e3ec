package jid

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"unsafe"
)

func TestCache(t *testing.T) {
	c := NewCache(1000)
	a, err := c.Parse([]byte("Juliet@Example.com/x"))
	if err != nil || a != MustParse("juliet@example.com/x") {
		t.Fatal(a, err)
	}
	b, err := c.Parse([]byte("Juliet@Example.com/x"))
	if err != nil || unsafe.StringData(a.s) != unsafe.StringData(b.s) {
		t.Fatal("the second look-up made another string", err)
	}
	if _, err := c.Parse([]byte("@")); !errors.Is(err, ErrMalformed) || c.Len() != 1 {
		t.Fatal("a failure was kept", err, c.Len())
	}
	raw := []byte("Juliet@Example.com/x")
	if n := testing.AllocsPerRun(100, func() { _, _ = c.Parse(raw) }); n != 0 {
		t.Fatalf("%v allocations on a hit", n)
	}
	raw[0] = 'X'
	if again, err := c.Parse([]byte("Juliet@Example.com/x")); err != nil || again != a {
		t.Fatal("the cache kept the caller's bytes", again, err)
	}
}

// What is in use survives the strings that are not.
func TestCacheKeepsWhatIsUsed(t *testing.T) {
	c := NewCache(3200)
	hot := []byte("hot@example.com")
	first, _ := c.Parse(hot)
	for i := range 20000 {
		_, _ = c.Parse(fmt.Appendf(nil, "u%d@example.com", i))
		if got, _ := c.Parse(hot); unsafe.StringData(got.s) != unsafe.StringData(first.s) {
			t.Fatalf("lost after %d others", i)
		}
	}
}

// Security: attacker-chosen strings do not make the cache grow, neither in number nor in bytes.
func TestSecurityUnboundedInterning(t *testing.T) {
	const entries = 1600
	c := NewCache(entries)
	for i := range 50000 {
		for _, s := range []string{
			fmt.Sprintf("%d@example.com", i),
			fmt.Sprintf("a@b/%d%s", i, strings.Repeat("r", i%300)),
			fmt.Sprintf("%d%s@%s", i, strings.Repeat("l", 900), strings.Repeat("d", 1000)),
			fmt.Sprintf("@%d", i),
		} {
			_, _ = c.Parse([]byte(s))
		}
	}
	held := 0
	for i := range c.shards {
		for _, gen := range []map[string]JID{c.shards[i].young, c.shards[i].old} {
			for raw, j := range gen {
				held += len(raw) + len(j.s)
			}
		}
	}
	if c.Len() > entries || held > entries*cacheMean {
		t.Fatalf("%d entries, %d bytes", c.Len(), held)
	}
	if c.Len() < entries/8 {
		t.Fatalf("only %d entries: it remembers nothing", c.Len())
	}
}

func TestCacheConcurrent(t *testing.T) {
	c := NewCache(64)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				s := fmt.Sprintf("User%d@example.com", (i*7+g)%200)
				if j, err := c.Parse([]byte(s)); err != nil || j.String() != strings.ToLower(s) {
					t.Errorf("%s: %v %v", s, j, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkCacheHit(b *testing.B) {
	c := NewCache(10000)
	raw := []byte("juliet@example.com/balcony")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Parse(raw); err != nil {
			b.Fatal(err)
		}
	}
}
