package nats

import (
	"context"
	"sync"
	"testing"
)

// BenchmarkSend is one sender who fills the window, until everything is
// acknowledged: both ends and the server in one process.
func BenchmarkSend(b *testing.B) {
	n, s := pair(b)
	handle(b, s, "p", func(context.Context, Peer, []byte) error { return nil })
	payload := make([]byte, 200)
	var acked sync.WaitGroup
	b.ReportAllocs()
	for b.Loop() {
		acked.Add(1)
		if err := n.Send(b.Context(), south.Node, "p", payload, func(error) { acked.Done() }); err != nil {
			b.Fatal(err)
		}
	}
	acked.Wait()
}

// BenchmarkRoundTrip sends the next payload when the one before is acknowledged.
func BenchmarkRoundTrip(b *testing.B) {
	n, s := pair(b)
	handle(b, s, "p", func(context.Context, Peer, []byte) error { return nil })
	payload := make([]byte, 200)
	acked := make(chan error, 1)
	b.ReportAllocs()
	for b.Loop() {
		if err := n.Send(b.Context(), south.Node, "p", payload, func(err error) { acked <- err }); err != nil {
			b.Fatal(err)
		}
		if err := <-acked; err != nil {
			b.Fatal(err)
		}
	}
}
