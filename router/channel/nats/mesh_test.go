package nats

import (
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"parley/router/channel/nats/embedded"
)

// spot is where a node's embedded server is; another one may come there.
type spot struct {
	at  atomic.Pointer[embedded.Server]
	all []string
	own string
}

func (p *spot) InProcessConn() (net.Conn, error) { return p.at.Load().InProcessConn() }

// start runs the server; it ends with the test.
func (p *spot) start(t *testing.T) {
	t.Helper()
	s, err := embedded.Start(t.Context(), embedded.Options{Cluster: "test", Listen: p.own, Routes: p.all, Secret: "of the test"})
	if err != nil {
		t.Fatal(err)
	}
	p.at.Store(s)
	t.Cleanup(s.Close)
}

// mesh is n places, each of which knows all.
func mesh(t *testing.T, n int) (all []*spot) {
	t.Helper()
	var at []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close() // when all are chosen
		at = append(at, l.Addr().String())
	}
	for _, own := range at {
		all = append(all, &spot{all: at, own: own})
	}
	return all
}

func (p *spot) dial(t *testing.T, self Peer) *Bus {
	t.Helper()
	return dial(t, "", self, func(o *Options) { o.URLs, o.Server = nil, p })
}

// MUST 1, 3, 5: in a mesh of embedded servers one that dies and comes back costs
// time, no payload and no order, and the others go on meanwhile.
func TestMeshLosesNothing(t *testing.T) {
	t.Parallel()
	places := mesh(t, 3)
	for _, p := range places {
		p.start(t)
	}
	var from []*Bus
	for i, p := range places[:2] {
		from = append(from, p.dial(t, Peer{"north " + strconv.Itoa(i), 1}))
	}
	s := places[2].dial(t, south)
	for _, b := range from {
		b.Join(south)
		b.Join(Peer{"north 1", 1})
	}
	half, wait := flood(t, s, from, []string{"a", "b"}, 3000)
	await(t, half)
	places[2].at.Load().Close()
	got := forward(t, from[1], "meanwhile")
	done, told := results()
	mustSend(t, from[0], Peer{"north 1", 1}, "meanwhile", "1", done)
	expect(t, got, "1")
	expectErr(t, told, nil)
	places[2].start(t)
	wait()

	// The process comes back as a whole: another life, and what was for the one
	// before does not reach it.
	shut(t, s)
	places[2].at.Load().Close()
	mustSend(t, from[0], south, "a", "for the first", done)
	places[2].start(t)
	second := Peer{south.Node, 2}
	s = places[2].dial(t, second)
	got = forward(t, s, "a")
	from[0].Join(second)
	expectErr(t, told, ErrGone)
	mustSend(t, from[0], second, "a", "for the second", done)
	expect(t, got, "for the second")
	expectErr(t, told, nil)
}

// A route that stands still is given up, and not after the minutes that it would take
// by default; what was on it comes again by another.
func TestMeshNoticesFrozenPeer(t *testing.T) {
	t.Parallel()
	places := mesh(t, 2)
	link := newProxy(t, places[0].own)
	places[0].all, places[1].all = nil, []string{link.l.Addr().String()}
	for _, p := range places {
		p.start(t)
	}
	n, s := places[1].dial(t, north), places[0].dial(t, south)
	n.Join(south)
	got := forward(t, s, "p")
	done, told := results()
	mustSend(t, n, south, "p", "1", done)
	expect(t, got, "1")
	expectErr(t, told, nil)
	link.freeze()
	thaw := sync.OnceFunc(link.thaw)
	t.Cleanup(thaw) // also when it fails: who copies waits
	mustSend(t, n, south, "p", "2", done)
	for i, p := range places {
		eventually(t, "the frozen route is given up by "+strconv.Itoa(i), func() bool { return p.at.Load().Routes() == 0 })
	}
	thaw()
	expect(t, got, "2")
	expectErr(t, told, nil)
}
