package pubsub

import (
	"slices"
	"testing"
	"time"

	"parley/plugins"
)

// Who has come later tells later, who has nothing to tell lets nobody past who was
// there before, and nothing is left of a line that has been gone through.
func TestTurns(t *testing.T) {
	var l lines
	n := &Node{id: 7}
	first, second, third, fourth := l.enter(n), l.enter(n), l.enter(n), l.enter(n)
	other := l.enter(&Node{id: 8})
	told := make(chan int, 4)
	tell := func(x *turn, i int) { x.tell(t.Context(), plugins.SystemClock{}, func() { told <- i }) }
	done := make(chan struct{})
	go func() { defer close(done); tell(third, 3) }()
	go tell(fourth, 4)
	tell(other, 8) // another node's
	second.leave()
	second.leave()
	tell(first, 1)
	<-done
	got := []int{<-told, <-told, <-told, <-told}
	if !slices.Equal(got, []int{8, 1, 3, 4}) {
		t.Errorf("told in the order %v", got)
	}
	fourth.leave()
	if len(l.all) != 0 {
		t.Errorf("%d lines are left", len(l.all))
	}
}

// impatient is a clock on which every time is over at once.
type impatient struct{ plugins.SystemClock }

func (impatient) AfterFunc(_ time.Duration, f func()) func() bool {
	go f()
	return func() bool { return false }
}

// Whoever does not come to an end keeps the others waiting for a bounded time.
func TestTurnsAreBounded(t *testing.T) {
	var l lines
	n := &Node{id: 7}
	stuck, second := l.enter(n), l.enter(n)
	told := false
	second.tell(t.Context(), impatient{}, func() { told = true })
	stuck.leave()
	if !told || len(l.all) != 0 {
		t.Errorf("told %v, %d lines are left", told, len(l.all))
	}
}
