package muc_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/plugintest"
	"parley/storage"
	"parley/storage/storagetest"
)

// TestReliability33RoomsOverALostLink: NATS is away between a room's owner and a node
// with an occupant, for so long that what the room says is given up on the way. The
// occupant stays connected, and hears everything, once and in order, the last of it too
// when nobody says anything more (D2, D3).
func TestReliability33RoomsOverALostLink(t *testing.T) {
	for _, more := range []bool{true, false} {
		t.Run(fmt.Sprintf("more=%v", more), func(t *testing.T) { lostLink(t, more) })
	}
}

func lostLink(t *testing.T, more bool) {
	c := storagetest.Postgres(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Nodes: 2, Mortal: true, Storage: func() storage.Config { return c },
		Config: "servers: {processor: {components: {muc: {messages: {every: 0s}}}}}"})
	room := ownedBy(ctx, t, h, 0)
	ann, bob := opens(ctx, t, h, 0, "ann", room), enters(ctx, t, h, 1, "bob", room)
	var said []string
	say := func() {
		body := fmt.Sprintf("m%d", len(said))
		said = append(said, body)
		ann.say(t, "<message to='%s' type='groupchat' id='%s'><body>%s</body></message>", room, body, body)
		ann.await(ctx, t, body, hears(ann, body))
	}
	say()
	bob.await(ctx, t, "m0", hears(bob, "m0"))
	h.Cut(1, plugintest.ToNATS)
	for !stalled(h) && ctx.Err() == nil {
		say()
		time.Sleep(50 * time.Millisecond) // a pipe stalls by itself
	}
	say() // into a pipe that takes nothing
	h.Mend(1, plugintest.ToNATS)
	if more {
		for !hears(bob, said[len(said)-1])(nil) && ctx.Err() == nil {
			say()
			time.Sleep(50 * time.Millisecond)
		}
	}
	bob.await(ctx, t, "the last", hears(bob, said[len(said)-1]))
	if got, _ := bob.heard(); !slices.Equal(got, said) {
		t.Errorf("bob heard %d of %d, or in another order: %q", len(got), len(said), got)
	}
}

// stalled reports whether what the first node delivers to another one is given up.
func stalled(h *plugintest.House) bool {
	for _, n := range h.HostOf(0).Control().Cluster().Nodes {
		if slices.ContainsFunc(n.Lanes, func(l plugins.Lane) bool { return l.Stalled && l.Port == "router" }) {
			return true
		}
	}
	return false
}

// hears reports whether somebody has heard it.
func hears(p *person, body string) func(*stanza.Element) bool {
	return func(*stanza.Element) bool { bodies, _ := p.heard(); return slices.Contains(bodies, body) }
}
