package cache

import (
	"context"
	"strconv"
	"testing"
	"time"
)

// peers are other nodes; the test speaks for them.
type peers struct{ heard map[string]func(string) }

func (p *peers) On(topic string, f func(string)) { p.heard[topic] = f }

func number(s string) (int, bool) {
	n, err := strconv.Atoi(s)
	return n, err == nil
}

// says is a database that says v.
func says(v string) func(context.Context, int) (string, error) {
	return func(context.Context, int) (string, error) { return v, nil }
}

func load(t *testing.T, c *Cache[int, string], f func(context.Context, int) (string, error)) string {
	t.Helper()
	v, err := c.Load(t.Context(), 1, f)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// What was read while something changed is used once and not kept, whoever has
// changed it.
func TestStaleLookUpIsNotKept(t *testing.T) {
	p := &peers{heard: map[string]func(string){}}
	c, err := New(Options[int, string]{Size: 10, Topic: "t", Peers: p, Parse: number})
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(){
		"here":      func() { c.Drop(1) },
		"elsewhere": func() { p.heard["t"]("1") },
	} {
		t.Run(name, func(t *testing.T) {
			c.Drop(1)
			old := load(t, c, func(context.Context, int) (string, error) {
				change()
				return "old", nil
			})
			if old != "old" {
				t.Fatal(old)
			}
			if v := load(t, c, says("new")); v != "new" {
				t.Errorf("%s was kept", v)
			}
			if v := load(t, c, says("newer")); v != "new" {
				t.Errorf("%s: nothing is kept", v)
			}
			since := c.Begin(1)
			change()
			c.Put(1, "of before the change", since)
			if v, ok := c.Get(1); ok {
				t.Errorf("%s was kept", v)
			}
			load(t, c, says("before a change of one's own"))
			since = c.Begin(1)
			change()
			c.Put(1, "after it, or of before the other one", since)
			if v, ok := c.Get(1); ok {
				t.Errorf("%s was kept", v)
			}
		})
	}
	p.heard["t"]("no number") // is nobody's
}

// A notice that gets lost costs at most TTL.
func TestTimeToLive(t *testing.T) {
	now := time.Unix(1000, 0)
	c, err := New(Options[int, string]{Size: 10, TTL: time.Minute, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	load(t, c, says("old"))
	now = now.Add(time.Minute - time.Microsecond)
	c.Replace(1, "made of it", c.Begin(1))
	c.Replace(2, "made of nothing", c.Begin(2))
	if v, ok := c.Get(2); ok {
		t.Errorf("%s is kept", v)
	}
	if v := load(t, c, says("new")); v != "made of it" {
		t.Errorf("%s after less than a minute", v)
	}
	now = now.Add(time.Microsecond)
	if v := load(t, c, says("new")); v != "new" {
		t.Errorf("%s after a minute", v)
	}
	now = now.Add(-time.Hour) // set back: nobody knows how old it is
	if v := load(t, c, says("newer")); v != "newer" {
		t.Errorf("%s under a clock that was set back", v)
	}
}

func TestBounded(t *testing.T) {
	for name, o := range map[string]Options[int, string]{
		"entries": {Size: 100},
		"weight":  {Size: 1000, Weigh: func(int, string) uint32 { return 10 }},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := New(o)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 5000 {
				if _, err := c.Load(t.Context(), i, says("x")); err != nil {
					t.Fatal(err)
				}
			}
			c.cache.CleanUp()
			if n := c.cache.EstimatedSize(); n > 100 {
				t.Errorf("%d entries", n)
			}
		})
	}
}
