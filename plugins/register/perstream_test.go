package register

import (
	"fmt"
	"testing"
	"time"

	"parley/plugins"
)

// standing is a time that goes on when it is told to.
type standing struct {
	plugins.SystemClock
	now time.Time
}

func (c *standing) Now() time.Time { return c.now }

// Of each stream one thing is remembered, of the last MaxStreams ones, for a while.
func TestReliability11PerStreamIsBounded(t *testing.T) {
	c := &standing{now: time.Unix(1e9, 0)}
	p := NewPerStream[int](c, time.Minute)
	has := func(stream string) (v int) {
		p.Look(stream, func(is int) bool { v = is; return true })
		return v
	}
	size := func(want int) {
		t.Helper()
		if p.Len() != want || p.order.Len() != want {
			t.Fatalf("%d streams, %d in order, want %d", p.Len(), p.order.Len(), want)
		}
	}
	p.Put("first", 1)
	p.Put("second", 1)
	p.Put("second", 2)
	p.PutNew("second", 3)
	if has("first") != 1 || has("second") != 2 {
		t.Errorf("%d, %d", has("first"), has("second"))
	}
	for i := range MaxStreams - 1 {
		p.Put(fmt.Sprint(i), i)
	}
	size(MaxStreams)
	if has("first") != 0 || has("second") != 2 {
		t.Error("the oldest is not the one that goes")
	}
	if !p.Look("second", func(int) bool { return false }) || has("second") != 0 {
		t.Error("what is not to stay does")
	}
	c.now = c.now.Add(time.Minute + time.Second)
	if p.Look("0", func(int) bool { t.Error("what is too old is shown"); return true }) {
		t.Error("it is too old, and there")
	}
	p.Put("later", 1)
	size(1)
	p.Drop("later")
	p.Drop("nobody")
	size(0)
}
