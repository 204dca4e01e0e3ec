package muc_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"parley/parser/stanza"
	"parley/plugins/plugintest"
)

// TestRule16LastWordsComeBeforeTheEnd: bob's client comes back under the same address
// (RFC 6120 §7.7.2.2) while a room is still at what it has said before. That is heard
// before bob leaves, not refused behind it to the client that has come.
func TestRule16LastWordsComeBeforeTheEnd(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	w := &watcher{block: make(chan struct{})}
	h := plugintest.Start(t, plugintest.Options{Plugins: append(house(), watcherPlugin(w))})
	const room = "garden@conference.localhost"
	ann, bob := opens(ctx, t, h, 0, "ann", room), enters(ctx, t, h, 0, "bob", room)
	bob.say(t, "<message to='%[1]s' type='groupchat' id='m1'><body>block</body></message><message to='%[1]s' type='groupchat' id='m2'><body>last</body></message>", room)
	<-w.block
	came := make(chan *plugintest.Client, 1)
	go func() {
		c, err := h.Node(0).Dial(ctx, "bob", "a")
		if err != nil {
			t.Error(err)
		}
		came <- c
	}()
	bob.await(ctx, t, "an error", func(el *stanza.Element) bool { return el.Name.Space == stanza.NSStream })
	w.block <- struct{}{}
	c := <-came
	if c == nil {
		return
	}
	again := &person{Client: c, nick: "bob", more: make(chan struct{}, 1)}
	t.Cleanup(c.Close)
	go again.read(ctx)
	ann.await(ctx, t, "bob's end", left(room))
	all := ann.all()
	last := slices.IndexFunc(all, says("last"))
	if last < 0 || last > slices.IndexFunc(all, left(room)) {
		t.Error("bob's last words were not heard before his end")
	}
	again.enter(ctx, t, room)
	if again.refused("m2") {
		t.Error("who has come hears that what another one said is refused")
	}
}
