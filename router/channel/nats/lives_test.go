package nats

import (
	"context"
	"errors"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// MUST 2, 3: a peer that leaves releases everybody, and takes its metrics along.
func TestPeerLeaves(t *testing.T) {
	reg := prometheus.NewRegistry()
	url := serve(t, -1).ClientURL()
	n := dial(t, url, north, func(o *Options) { o.Window.Frames, o.Metrics = 2, reg })
	n.Join(south) // which does not listen
	done, told := results()
	mustSend(t, n, south, "p", "1", done)
	mustSend(t, n, south, "p", "2", done)
	waiting := goSend(t, t.Context(), n, south, "p", "never", done)
	if v := value(t, reg, "parley_lane_in_flight", south.Node, "p"); v != 2 {
		t.Errorf("%v in flight", v)
	}
	n.Leave(Peer{south.Node, south.Incarnation - 1}) // nobody cares
	n.Leave(south)
	expectErr(t, waiting, ErrGone)
	expectErr(t, told, ErrGone)
	expectErr(t, told, ErrGone)
	for _, s := range all() {
		if v := value(t, reg, s.name, south.Node, "p"); v != -1 {
			t.Errorf("%s of a peer that has left is %v", s.name, v)
		}
	}
	if l := n.Lanes(south.Node); len(l) > 0 {
		t.Errorf("lanes to a peer that has left: %+v", l)
	}
	n.Join(south)
	if err := n.Send(t.Context(), south.Node, "p", nil, done); !errors.Is(err, ErrGone) {
		t.Errorf("it has come back: %v", err)
	}
	if len(told) > 0 {
		t.Error("done of a Send that has failed")
	}
}

// MUST 6: payloads for a life do not reach the next one, which begins anew.
func TestNewLife(t *testing.T) {
	url := serve(t, -1).ClientURL()
	n := dial(t, url, north)
	first, second := south, Peer{south.Node, 2}
	s1 := dial(t, url, first)
	got := forward(t, s1, "p")
	n.Join(first)
	done, told := results()
	mustSend(t, n, first, "p", "1", done)
	expectErr(t, told, nil)
	expect(t, got, "1")
	shut(t, s1)

	s2 := dial(t, url, second)
	got = forward(t, s2, "p")
	mustSend(t, n, first, "p", "for the first", done)
	n.Join(second)
	expectErr(t, told, ErrGone)
	mustSend(t, n, second, "p", "for the second", done)
	expectErr(t, told, nil)
	expect(t, got, "for the second")
	n.Join(first) // is over
	mustSend(t, n, second, "p", "again", done)
	expectErr(t, told, nil)
	expect(t, got, "again")
}

// MUST 6: lives of the sending node, seen from the receiving one.
func TestFramesOfOtherLives(t *testing.T) {
	url := serve(t, -1).ClientURL()
	n := dial(t, url, north)
	got := forward(t, n, "p")
	first, second := newGhost(t, url, Peer{"ghost", 1}), newGhost(t, url, Peer{"ghost", 2})
	first.data(north, "p", 1)
	expect(t, got, "1")
	for _, other := range []uint64{0, 2} {
		first.data(Peer{north.Node, other}, "p", 2)
	}
	if f := first.ask(north, "p", 1); f.received != 1 {
		t.Errorf("taken what was for another life: %v", f.received)
	}
	second.data(north, "p", 1)
	expect(t, got, "1")
	first.data(north, "p", 2) // is over
	second.data(north, "p", 2)
	expect(t, got, "2")
	if f := second.ask(north, "p", 1); f.received != 2 {
		t.Errorf("received %d of the second life", f.received)
	}
	n.Leave(second.Peer)
	second.data(north, "p", 3)
	third := newGhost(t, url, Peer{"ghost", 3})
	third.data(north, "p", 1)
	expect(t, got, "1")
	if len(got) > 0 {
		t.Errorf("and from a life that has left: %q", <-got)
	}
}

// MUST 6: calls for two lives of a node do not overlap.
func TestNewLifeWaitsForTheHandlerOfTheOld(t *testing.T) {
	url := serve(t, -1).ClientURL()
	n := dial(t, url, north)
	inside, proceed := make(chan Peer, 10), make(chan struct{})
	handle(t, n, "p", func(_ context.Context, from Peer, _ []byte) error {
		give(t, inside, from)
		take(t, proceed)
		return nil
	})
	first, second := newGhost(t, url, Peer{"ghost", 1}), newGhost(t, url, Peer{"ghost", 2})
	first.data(north, "p", 1)
	first.data(north, "p", 2) // will be dropped with its life
	expect(t, inside, first.Peer)
	first.ask(north, "p", 1)
	second.data(north, "p", 1)
	if f := second.ask(north, "p", 1); f.received != 1 || f.handled != 0 || len(inside) > 0 {
		t.Errorf("received %d, handled %d", f.received, f.handled)
	}
	let(t, proceed)
	expect(t, inside, second.Peer)
	let(t, proceed)
}

// MUST 4, 5: what the far end does with gaps, repetitions and questions.
func TestRepetitionsAreAcknowledgedOnly(t *testing.T) {
	url := serve(t, -1).ClientURL()
	n := dial(t, url, north, func(o *Options) { o.Window.Frames = 3 })
	inside, proceed := make(chan string, 10), make(chan struct{})
	handle(t, n, "p", func(_ context.Context, _ Peer, p []byte) error {
		give(t, inside, string(p))
		take(t, proceed)
		return nil
	})
	g := newGhost(t, url, Peer{"ghost", 1})
	g.data(north, "p", 2) // one is missing before it
	g.data(north, "p", 1)
	expect(t, inside, "1")
	g.data(north, "p", 1) // while its handler runs
	g.data(north, "p", 2)
	g.data(north, "p", 2)
	g.data(north, "p", 3)
	g.data(north, "p", 4) // beyond the window
	if f := g.ask(north, "p", 1); f.handled != 0 || f.received != 3 {
		t.Errorf("handled %d, received %d", f.handled, f.received)
	}
	let(t, proceed)
	expect(t, inside, "2")
	let(t, proceed)
	expect(t, inside, "3")
	let(t, proceed)
	for f := await(t, g.in); f.handled < 3; f = await(t, g.in) {
		if f.question != 0 {
			t.Errorf("an answer to %d, which nobody has asked", f.question)
		}
	}
	g.data(north, "p", 3) // the acknowledgement was lost
	if f := await(t, g.in); f.handled != 3 {
		t.Errorf("handled %d", f.handled)
	}
	if len(inside) > 0 {
		t.Errorf("handled again: %q", <-inside)
	}
}

// MUST 5: the near end repeats what the far end has not, once per answer, and
// nothing when it is only slow.
func TestNearEndRepeatsWhatIsMissing(t *testing.T) {
	url := serve(t, -1).ClientURL()
	n := dial(t, url, north)
	g := newGhost(t, url, Peer{"ghost", 1}, "p")
	n.Join(g.Peer)
	done, told := results()
	for _, p := range []string{"1", "2", "3"} {
		mustSend(t, n, g.Peer, "p", p, done)
	}
	seqs := func(want ...uint64) {
		t.Helper()
		for _, w := range want {
			if f := await(t, g.in); f.kind != kindData || f.seq != w {
				t.Fatalf("got kind %d number %d, want number %d", f.kind, f.seq, w)
			}
		}
	}
	ack := func(handled, received uint64, q frame) {
		t.Helper()
		g.send(north, ackPort, frame{kind: kindAck, port: []byte("p"), handled: handled, received: received, question: q.question, seq: q.seq})
	}
	seqs(1, 2, 3)
	q := await(t, g.in)
	if q.kind != kindAsk || q.seq != 3 {
		t.Fatalf("kind %d behind %d", q.kind, q.seq)
	}
	ack(0, 3, q) // slow
	q = await(t, g.in)
	if q.kind != kindAsk {
		t.Fatalf("repeats what has arrived: kind %d number %d", q.kind, q.seq)
	}
	ack(1, 1, q)
	expectErr(t, told, nil)
	seqs(2, 3)
	ack(1, 1, q) // says nothing new
	if q = await(t, g.in); q.kind != kindAsk {
		t.Fatalf("repeats for an old answer: kind %d number %d", q.kind, q.seq)
	}
	ack(2, 9, frame{}) // never sent
	ack(2, 1, frame{}) // not possible
	ack(3, 3, frame{})
	expectErr(t, told, nil)
	expectErr(t, told, nil)
	mustSend(t, n, g.Peer, "p", "4", done)
	seqs(4)
}

// MUST 8
func TestOtherVersionsAreIgnored(t *testing.T) {
	url := serve(t, -1).ClientURL()
	n := dial(t, url, north)
	got := forward(t, n, "p")
	g := newGhost(t, url, Peer{"ghost", 1})
	for _, b := range [][]byte{nil, {wireVersion}, {wireVersion + 1, 1, 2, 3}, []byte("hello")} {
		if err := g.nc.Publish(subject("test", north.Node, g.Node, "p"), b); err != nil {
			t.Fatal(err)
		}
	}
	g.data(north, "p", 1)
	expect(t, got, "1")
}

// MUST 8: nobody speaks as another node than the one a server lets it be.
func TestFramesOfImpostorsAreIgnored(t *testing.T) {
	url := serve(t, -1).ClientURL()
	n := dial(t, url, north)
	got := forward(t, n, "p")
	victim, impostor := newGhost(t, url, Peer{"victim", 1}), newGhost(t, url, Peer{"impostor", 1})
	victim.data(north, "p", 1)
	expect(t, got, "1")
	f := frame{kind: kindData, node: []byte(victim.Node), life: victim.Incarnation, to: north.Incarnation, seq: 2, payload: []byte("forged")}
	if err := impostor.nc.Publish(subject("test", north.Node, impostor.Node, "p"), f.append(nil)); err != nil {
		t.Fatal(err)
	}
	impostor.ask(north, "p", 1) // by then it has come
	if f := victim.ask(north, "p", 1); f.received != 1 {
		t.Errorf("received %d of the victim", f.received)
	}
}

// What is remembered of nodes that have left has a bound.
func TestDepartedNodesAreForgotten(t *testing.T) {
	b := newBus(Options{Self: north})
	defer b.cancel()
	for i := range uint64(2 * maxDeparted) {
		p := Peer{string(rune('a'+i%26)) + string(rune('ก'+i/26)), 1}
		b.Join(p)
		b.Leave(p)
	}
	if len(b.neighbours) > maxDeparted || len(b.departed) > maxDeparted {
		t.Errorf("%d, %d", len(b.neighbours), len(b.departed))
	}
	for i := range uint64(2 * maxNeighbours) {
		b.receiver(&frame{node: []byte{'x', byte('0' + i%64), byte('0' + i/64)}, life: 1}, "p", nil)
	}
	if len(b.neighbours) > maxNeighbours {
		t.Errorf("%d", len(b.neighbours))
	}
	for _, n := range b.neighbours {
		n.end(ErrGone)
	}
	b.pipes.Wait()
}
