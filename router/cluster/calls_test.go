package cluster

import (
	"context"
	"testing"
)

// What takes its time at another node holds up nothing else that it is told, and
// is answered when it is done.
func TestAsksHoldUpNobody(t *testing.T) {
	w := newWorld(t)
	a, b := w.enter("a"), w.enter("b")
	begun, done := make(chan string, 2), make(chan struct{})
	b.On("slow", func(key string) {
		begun <- key
		<-done
	})
	heard := make(chan string, 1)
	b.On("topic", func(key string) { heard <- key })
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- a.Ask(ctx, "b", "slow", "1") }()
	go func() { second <- a.Ask(ctx, "", "slow", "2") }()
	if one, two := <-begun, <-begun; one == two {
		t.Errorf("%s twice", one)
	}
	if err := a.Tell(ctx, "topic", "x"); err != nil || <-heard != "x" {
		t.Fatal(err)
	}
	if len(first)+len(second) > 0 {
		t.Error("answered before it was done")
	}
	close(done)
	if err := <-first; err != nil {
		t.Error(err)
	}
	if err := <-second; err != nil {
		t.Error(err)
	}
}

// Who is gone does not answer any more, and is not waited for.
func TestAsksEndWithTheirNode(t *testing.T) {
	w := newWorld(t)
	a, b := w.enter("a"), w.enter("b")
	begun, done := make(chan struct{}), make(chan struct{})
	defer close(done)
	b.On("slow", func(string) {
		close(begun)
		<-done
	})
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	answer := make(chan error, 1)
	go func() { answer <- a.Ask(ctx, "b", "slow", "1") }()
	<-begun
	a.apply(change{left: []Member{b.members.Self()}})
	if err := <-answer; err != nil {
		t.Error(err)
	}
	if err := a.Ask(ctx, "gone", "slow", "1"); err != nil {
		t.Error(err)
	}
	if err := b.called(ctx, peer(a.members.Self()), []byte{0xff}); err == nil {
		t.Error("a question that is none")
	}
}
