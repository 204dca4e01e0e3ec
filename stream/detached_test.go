package stream

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
)

// detached is a connection that was taken off its session because the client
// does not read; its reader is still at work on what came before.
func detached(t *testing.T, h *house) (c *Conn, id string) {
	t.Helper()
	c, p := h.bound(t, "a")
	id = enable(t, c, p)
	p.stuck = true
	for i := range h.cfg.Resumption.Unacked + 1 {
		h.message(c.session, fmt.Sprint(i))
	}
	h.errands.wait()
	if !p.closed {
		t.Fatal("still connected")
	}
	p.read()
	return c, id
}

// What a client said before it was detached is still read: its session has no
// connection then, or another one, and neither is answered for it.
func TestFault5DetachedWhileSpeaking(t *testing.T) {
	h := newHouse(t, nil)
	c, _ := detached(t, h)
	for _, el := range []string{smR, "<a xmlns='urn:xmpp:sm:3' h='1'/>", "<active xmlns='urn:xmpp:csi:0'/>", "<inactive xmlns='urn:xmpp:csi:0'/>", smR} {
		mustSay(t, c, el)
	}
	if c.session.csi.inactive {
		t.Error("the client's state survives its connection (XEP-0352 §5.2)")
	}
	if n := c.session.sm.acked; n != 1 {
		t.Errorf("%d acknowledged, want 1", n)
	}
}

// A client that was detached resumes at once: the h of <resumed/> waits for
// what the reader of the connection before has still in its hands.
func TestRule58ResumeWaitsForTheDetachedReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t, nil)
		c, id := detached(t, h)
		c2, p2 := h.login()
		done := make(chan error)
		go func() {
			done <- say(c2, "<resume xmlns='urn:xmpp:sm:3' previd='"+id+"' h='21'/>")
		}()
		synctest.Wait()
		want(t, p2.read(), "")
		mustSay(t, c, "<message/>")
		c.detach(context.Background())
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		want(t, p2.read(), "<resumed xmlns='urn:xmpp:sm:3' previd='"+id+"' h='1'/>")
	})
}

// A session that has ended is not entered among those that can be resumed:
// nobody would take it out again.
func TestEnableAfterTheEnd(t *testing.T) {
	h := newHouse(t, nil)
	c, _ := h.bound(t, "a")
	c.session.end(context.Background())
	mustSay(t, c, "<enable xmlns='urn:xmpp:sm:3' resume='true'/>")
	if n := len(h.resumes.all()); n != 0 {
		t.Errorf("%d sessions are kept for ever", n)
	}
}
