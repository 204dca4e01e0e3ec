package stream

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/router/channel"
	"parley/router/sessions"
	"parley/stream/sasl"
)

// serve starts the connection's reader; over is closed when it is through with
// everything, the session's end with it.
func serve(c *Conn) (over <-chan struct{}) {
	done := make(chan struct{})
	go func() { defer close(done); c.live(context.Background()) }()
	return done
}

// cut ends the connection as a broken network does, and waits until its session
// knows and has told the house.
func cut(p *pipe, over <-chan struct{}) {
	p.Close(0)
	<-over
}

// resume resumes on a new connection and opens it.
func resume(t *testing.T, h *house, id string, count int) (*Conn, *pipe) {
	t.Helper()
	c, p := h.login()
	mustSay(t, c, fmt.Sprintf("<resume xmlns='urn:xmpp:sm:3' previd='%s' h='%d'/>", id, count))
	return c, p
}

func TestRule58Resume(t *testing.T) {
	h := newHouse(t, nil)
	c, p := h.bound(t, "a")
	id := enable(t, c, p)
	over := serve(c)
	p.in <- []byte("<stream:stream to='localhost' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>")
	h.message(c.session, "1")
	h.message(c.session, "2")
	cut(p, over)
	h.message(c.session, "3")
	c2, p2 := resume(t, h, id, 1)
	want(t, p2.read(), "<resumed xmlns='urn:xmpp:sm:3' previd='"+id+"' h='0'/><message id='2'/><message id='3'/>")
	if c2.session != c.session || c2.phase != Established {
		t.Fatal("not the same session")
	}
	h.message(c2.session, "4")
	want(t, p2.read(), "<message id='4'/>")
	var told []bool
	for _, e := range h.sent(channel.Change) {
		told = append(told, e.State.Hibernated)
	}
	want(t, fmt.Sprint(told), "[true false]")
}

// Nobody resumes a stranger's session, nor learns that it is there.
func TestFault27StrangersSession(t *testing.T) {
	h := newHouse(t, nil)
	c, p := h.bound(t, "a")
	id := enable(t, c, p)
	c2, p2 := h.login()
	c2.account = jid.MustParse("iago@localhost")
	mustSay(t, c2, "<resume xmlns='urn:xmpp:sm:3' previd='"+id+"' h='0'/>")
	want(t, p2.read(), "<failed xmlns='urn:xmpp:sm:3'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>")
	c.session.end(context.Background())
	mustSay(t, c2, "<resume xmlns='urn:xmpp:sm:3' previd='"+id+"' h='0'/>")
	want(t, p2.read(), "<failed xmlns='urn:xmpp:sm:3'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>")
}

// Many streams resume at once: one has the session in the end, and every
// other one that had it was told of the conflict.
func TestFault27ResumeRace(t *testing.T) {
	h := newHouse(t, nil)
	c, p := h.bound(t, "a")
	id := enable(t, c, p)
	serve(c)
	const n = 16
	conns, pipes := make([]*Conn, n), make([]*pipe, n)
	var all sync.WaitGroup
	for i := range n {
		conns[i], pipes[i] = h.login()
		all.Go(func() {
			if err := say(conns[i], "<resume xmlns='urn:xmpp:sm:3' previd='"+id+"' h='0'/>"); err != nil {
				t.Error(err)
			}
			serve(conns[i])
		})
	}
	all.Wait()
	sess := c.session
	sess.mu.Lock()
	holder := sess.conn
	sess.mu.Unlock()
	for i := range n {
		out := pipes[i].read()
		if !strings.Contains(out, "<resumed") && !strings.Contains(out, "<conflict") { // the next one may be faster than the answer
			t.Errorf("refused: %s", out)
		}
		if lost := strings.Contains(out, "<conflict"); lost == (conns[i] == holder) {
			t.Errorf("holder %t, conflict %t", conns[i] == holder, lost)
		}
	}
	if holder == nil {
		t.Error("nobody has the session")
	}
}

// What came over the old connection and is not done yet is not handled twice:
// the new stream learns h when it is final.
func TestRule58ResumeWaitsForWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, testResumeWaits)
}

func testResumeWaits(t *testing.T) {
	h := newHouse(t, nil)
	c, p := h.bound(t, "a")
	id := enable(t, c, p)
	over := serve(c)
	h.hold = true
	mustSay(t, c, "<message/>")
	cut(p, over)
	c2, p2 := h.login()
	done := make(chan error)
	go func() { done <- say(c2, "<resume xmlns='urn:xmpp:sm:3' previd='"+id+"' h='0'/>") }()
	synctest.Wait()
	want(t, p2.read(), "")
	_ = h.deliver(context.Background(), []*channel.Envelope{{Kind: channel.Handled, Session: c.session.ref, Seq: 1}})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	want(t, p2.read(), "<resumed xmlns='urn:xmpp:sm:3' previd='"+id+"' h='1'/>")
}

// XEP-0198 §5: in the end messages and requests go back with the time they
// came, presence does not; nothing can be resumed any more.
func TestRule58Window(t *testing.T) {
	h := newHouse(t, nil)
	c, p := h.bound(t, "a")
	id := enable(t, c, p)
	over := serve(c)
	cut(p, over)
	stamp := h.clock.Now().UnixMicro()
	h.send1(c.session, channel.Envelope{Raw: []byte("<message id='1'/>"), Pending: 7})
	h.send1(c.session, channel.Envelope{Raw: []byte("<presence/>"), Class: channel.Presence})
	h.send1(c.session, channel.Envelope{Raw: []byte("<iq id='2'/>")})
	h.send1(c.session, channel.Envelope{Raw: []byte("<iq id='3'/>"), Solicited: true})
	h.clock.add(h.cfg.Resumption.Window - 1)
	c.session.check(context.Background(), h.clock.Now())
	if n := len(h.sent(channel.Unbind)); n != 0 {
		t.Fatal("ended before its time")
	}
	h.clock.add(1)
	c.session.check(context.Background(), h.clock.Now())
	back := h.sent(channel.Undelivered)
	if len(h.sent(channel.Unbind)) != 1 || len(back) != 2 {
		t.Fatalf("%d handed back", len(back))
	}
	want(t, fmt.Sprintf("%s %d %d %s", back[0].Raw, back[0].Pending, back[0].Stamp, back[1].Raw), fmt.Sprintf("<message id='1'/> 7 %d <iq id='2'/>", stamp))
	h.mu.Lock()
	first := h.got[len(h.got)-3].Kind
	h.mu.Unlock()
	if first != channel.Unbind {
		t.Error("handed back before it was unbound")
	}
	_, p2 := resume(t, h, id, 0)
	want(t, p2.read(), "<failed xmlns='urn:xmpp:sm:3' h='0'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>")
}

// A session without a connection that misses too much ends; nothing it was
// sent is lost.
func TestFault5AwayTooLong(t *testing.T) {
	h := newHouse(t, nil)
	c, p := h.bound(t, "a")
	id := enable(t, c, p)
	over := serve(c)
	cut(p, over)
	n := awayFactor*h.cfg.Resumption.Unacked + 3
	for i := range n {
		h.message(c.session, fmt.Sprint(i))
	}
	if got := len(h.sent(channel.Undelivered)); got != n {
		t.Fatalf("%d of %d handed back", got, n)
	}
	_, p2 := resume(t, h, id, 0)
	if got := p2.read(); !strings.Contains(got, "item-not-found") {
		t.Fatal(got)
	}
}

// A client that does not read is detached when it can come back.
func TestFault5SlowReaderDetached(t *testing.T) {
	h := newHouse(t, nil)
	c, p := h.bound(t, "a")
	id := enable(t, c, p)
	over := serve(c)
	p.stuck = true
	n := h.cfg.Resumption.Unacked + 1
	for i := range n {
		h.message(c.session, fmt.Sprint(i))
	}
	comesBack(t, h, p, over, id, n)
}

// comesBack checks that a client was disconnected, and gets n messages when it resumes.
func comesBack(t *testing.T, h *house, p *pipe, over <-chan struct{}, id string, n int) {
	t.Helper()
	h.errands.wait()
	if !p.closed {
		t.Fatal("still connected")
	}
	<-over
	_, p2 := resume(t, h, id, 0)
	if got := strings.Count(p2.read(), "<message"); got != n {
		t.Fatalf("%d of %d sent when it comes back", got, n)
	}
}

// Without stream management it is closed, and what it could not take is
// handed back.
func TestFault5SlowReaderClosed(t *testing.T) {
	h := newHouse(t, nil)
	c, p := h.bound(t, "a")
	over := serve(c)
	p.stuck = true
	for i := range 400 {
		h.message(c.session, fmt.Sprint(i))
	}
	h.errands.wait()
	<-over
	written := strings.Count(p.read(), "<message")
	if back := len(h.sent(channel.Undelivered)); written == 0 || back == 0 || written+back != 400 {
		t.Fatalf("%d written, %d handed back", written, back)
	}
	if len(h.sent(channel.Unbind)) != 1 {
		t.Fatal("not unbound")
	}
}

// An empty outbox takes any one stanza (house: back-pressure).
func TestFault5OneLargeStanza(t *testing.T) {
	h := newHouse(t, nil)
	big := "<message id='" + strings.Repeat("x", 2*int(h.cfg.Outbox)) + "'/>"
	for _, managed := range []bool{false, true} {
		c, p := h.bound(t, "a")
		if managed {
			enable(t, c, p)
		}
		h.send1(c.session, channel.Envelope{Raw: []byte(big)})
		want(t, p.read(), big)
	}
}

// What the client asked for itself pauses its producer instead.
func TestFault5SolicitedWaits(t *testing.T) { synctest.Test(t, testSolicitedWaits) }

func testSolicitedWaits(t *testing.T) {
	h := newHouse(t, nil)
	c, p := h.bound(t, "a")
	p.stuck = true
	done := make(chan struct{})
	page := make([]byte, 0, 1000)
	page = append(append(append(page, "<message id='"...), strings.Repeat("x", 900)...), "'/>"...)
	go func() {
		defer close(done)
		for range 20 {
			h.send1(c.session, channel.Envelope{Raw: page, Solicited: true})
		}
	}()
	for read := 0; read < 20; {
		synctest.Wait() // it waits for room, or is done
		if n := p.Pending(); n == 0 || n > int(h.cfg.Outbox) {
			t.Fatalf("%d bytes wait after %d stanzas", n, read)
		}
		read += strings.Count(p.read(), "<message")
		p.mu.Lock()
		p.waiting = 0
		f := p.drained
		p.mu.Unlock()
		f()
	}
	<-done
	if n := len(h.sent(channel.Undelivered)); n != 0 {
		t.Fatalf("%d handed back", n)
	}
}

// With stream management too much of what the client asked for is sent, but
// not kept: it cannot resume until it has acknowledged that.
func TestFault27SolicitedGap(t *testing.T) {
	h := newHouse(t, nil)
	c, p := h.bound(t, "a")
	enable(t, c, p)
	n := h.cfg.Resumption.Unacked + 5
	for i := range n {
		h.send1(c.session, channel.Envelope{Raw: fmt.Appendf(nil, "<message id='%d'/>", i), Solicited: true, Pending: int64(i + 1)})
	}
	if got := strings.Count(p.read(), "<message"); got != n {
		t.Fatalf("%d of %d sent", got, n)
	}
	if c.session.sm.resumable() {
		t.Fatal("a session with gaps may be resumed")
	}
	mustSay(t, c, fmt.Sprintf("<a xmlns='urn:xmpp:sm:3' h='%d'/>", n))
	if got := len(h.acks.take()[c.session.ref]); got != n || !c.session.sm.resumable() {
		t.Fatalf("%d rows freed, resumable %t", got, c.session.sm.resumable())
	}
	if c.session.sm.size != 0 {
		t.Errorf("%d bytes left", c.session.sm.size)
	}
}

// Rows count as delivered when the socket has taken them, and not when it died.
func TestRowsWithoutManagement(t *testing.T) {
	h := newHouse(t, nil)
	c, p := h.bound(t, "a")
	send := func(row int64) { h.send1(c.session, channel.Envelope{Raw: []byte("<message/>"), Pending: row}) }
	p.stuck = true
	send(1)
	if rows := h.acks.take(); len(rows) != 0 {
		t.Fatal("freed before it was written")
	}
	p.stuck = false
	send(2)
	want(t, fmt.Sprint(h.acks.take()[c.session.ref]), "[1 2]")
	c.closing.Store(true)
	send(3)
	if rows := h.acks.take(); len(rows) != 0 {
		t.Fatal("freed after the stream was closed")
	}
}

// What a session has taken is said before it ends, also when that is on its
// way already: the next one does not get it again (design: Pending).
func TestRowsAreToldOnDetach(t *testing.T) {
	h := newHouse(t, nil)
	c, _ := h.bound(t, "a")
	other, _ := h.bound(t, "b")
	h.send1(c.session, channel.Envelope{Raw: []byte("<message/>"), Pending: 1})
	h.acks.take()
	h.send1(c.session, channel.Envelope{Raw: []byte("<message/>"), Pending: 2})
	h.send1(other.session, channel.Envelope{Raw: []byte("<message/>"), Pending: 3})
	h.got = nil
	c.session.end(t.Context())
	if len(h.got) != 2 || h.got[0].Kind != channel.Acked || h.got[1].Kind != channel.Unbind {
		t.Fatalf("told: %v", h.got)
	}
	want(t, fmt.Sprint(h.got[0].Session.JID.Resource(), h.got[0].Rows), "a[2 1]")
	want(t, fmt.Sprint(h.acks.take()), fmt.Sprint(map[sessions.Ref][]int64{other.session.ref: {3}}))
	h.acks.passed()
	h.got = nil
	other.session.end(t.Context())
	if len(h.got) != 1 {
		t.Fatalf("told again: %v", h.got)
	}
}

// A stream that was closed in order cannot be resumed (XEP-0198 §7).
func TestRule58ClosedIsNotResumable(t *testing.T) {
	h := newHouse(t, nil)
	c, p := h.bound(t, "a")
	id := enable(t, c, p)
	if err := c.token(context.Background(), stanza.Token{Kind: stanza.Close}); !errors.Is(err, errEnd) {
		t.Fatal(err)
	}
	c.detach(context.Background())
	if len(h.sent(channel.Unbind)) != 1 {
		t.Fatal("not unbound")
	}
	_, p2 := resume(t, h, id, 0)
	if got := p2.read(); !strings.Contains(got, "item-not-found") {
		t.Fatal(got)
	}
}

// Nothing reaches a client before it knows that it has a session.
func TestDeliveriesWaitForTheAnswer(t *testing.T) {
	h := newHouse(t, nil)
	c, p := h.login()
	if _, err := c.Bind(context.Background(), "a", sessions.State{}); err != nil {
		t.Fatal(err)
	}
	h.message(c.session, "1")
	want(t, p.read(), "")
	c.session.open()
	want(t, p.read(), "<message id='1'/>")
}

// A silent client is asked; one that does not answer is given up.
func TestFault6Silence(t *testing.T) {
	h := newHouse(t, nil)
	c, p := h.bound(t, "a")
	check := func(d time.Duration) string {
		h.clock.add(d)
		c.session.check(context.Background(), h.clock.Now())
		return p.read()
	}
	want(t, check(h.cfg.Timeouts.Idle-1), "")
	if got := check(1); !strings.Contains(got, "<ping xmlns='urn:xmpp:ping'/>") {
		t.Fatal(got)
	}
	c.session.heard()
	want(t, check(h.cfg.Resumption.RequestGap), "")
	if got := check(h.cfg.Timeouts.Idle); !strings.Contains(got, "ping") {
		t.Fatal(got)
	}
	if got := check(h.cfg.Resumption.RequestGap); !strings.Contains(got, "<connection-timeout") {
		t.Fatal(got)
	}
	c, p = h.bound(t, "b")
	enable(t, c, p)
	want(t, check(h.cfg.Timeouts.Idle), smR)
}

func TestRule59NothingReordered(t *testing.T) {
	h := newHouse(t, nil)
	c, p := h.bound(t, "a")
	presence := func(from, id string) {
		st := stanza.Make(stanza.Presence, "", jid.MustParse(from), c.session.ref.JID, id)
		h.send1(c.session, channel.Envelope{Raw: []byte("<presence id='" + id + "'/>"), Stanza: st, Class: channel.Presence})
	}
	mustSay(t, c, "<inactive xmlns='urn:xmpp:csi:0'/>")
	presence("a@x/1", "a1")
	presence("b@x/1", "b1")
	presence("a@x/2", "a2")
	presence("a@x/1", "a3")
	h.send1(c.session, channel.Envelope{Raw: []byte("<message id='typing'/>"), Class: channel.ChatState})
	want(t, p.read(), "")
	h.message(c.session, "m")
	want(t, p.read(), "<presence id='b1'/><presence id='a2'/><presence id='a3'/><message id='m'/>")
	presence("a@x/1", "a4")
	mustSay(t, c, "<active xmlns='urn:xmpp:csi:0'/>")
	want(t, p.read(), "<presence id='a4'/>")
	mustSay(t, c, "<inactive xmlns='urn:xmpp:csi:0'/>")
	for i := range csiStanzas + 1 {
		presence(fmt.Sprintf("a@x/%d", i), fmt.Sprint(i))
	}
	if got := strings.Count(p.read(), "<presence"); got != csiStanzas+1 {
		t.Fatalf("%d went out", got)
	}
	if len(h.sent(channel.Change)) != 0 { // XEP-0352 §6
		t.Fatal("the state was told")
	}
}

// The resource is stable for a client that names itself, and does not show
// the name (XEP-0386 §3.2.1).
func TestStableResource(t *testing.T) {
	h := newHouse(t, nil)
	c, _ := h.login()
	tag := stanza.El(stanza.NSBind2, "tag").AddText("App\x00\n" + strings.Repeat("y", 100))
	if first, second := c.resource(tag), c.resource(tag); first == second {
		t.Fatal("a nameless client gets the same resource twice")
	}
	c.device = "d4565fa7-4d72-4749-b3d3-740edbf87770"
	one := c.resource(tag)
	if one != c.resource(tag) || !strings.HasPrefix(one, "Appyyy") || strings.Contains(one, "d4565") || len(one) > 100 {
		t.Fatal(one)
	}
	c.account = jid.MustParse("juliet@localhost")
	if c.resource(tag) == one {
		t.Fatal("two accounts share it")
	}
}

// tokens is Credentials that only issues.
type tokens struct {
	Credentials
	issued, revoked int
}

func (k *tokens) Issue(_ context.Context, _ jid.JID, client, mechanism string) (sasl.Token, error) {
	k.issued++
	return sasl.Token{Secret: mechanism + " of " + client, Expires: time.Unix(1_700_000_000, 0).Add(30 * 24 * time.Hour)}, nil
}

func (k *tokens) Revoke(context.Context, jid.JID, string) error { k.revoked++; return nil }

// XEP-0484 §3.5, §3.6: a token close to its end is replaced, one that is
// invalidated is not, unless another one is asked for.
func TestTokenRotation(t *testing.T) {
	h := newHouse(t, nil)
	k := &tokens{}
	h.table.Store(newTable([]*Registrar{{credentials: k}}))
	c, _ := h.login()
	now := h.clock.Now()
	for _, tc := range []struct {
		name            string
		req             sasl2Request
		expires         time.Duration // of the token that was used; 0: a password was
		issued, revoked int
	}{
		{"password", sasl2Request{clientID: "x"}, 0, 0, 0},
		{"asked for", sasl2Request{clientID: "x", fast: fastRequest{mechanism: "HT"}}, 0, 1, 0},
		{"asked for by nobody", sasl2Request{fast: fastRequest{mechanism: "HT"}}, 0, 0, 0},
		{"fresh", sasl2Request{clientID: "x", fast: fastRequest{present: true}}, rotateBefore, 0, 0},
		{"due", sasl2Request{clientID: "x", fast: fastRequest{present: true}}, rotateBefore - 1, 1, 0},
		{"invalidated", sasl2Request{clientID: "x", fast: fastRequest{present: true, invalidate: true}}, 1, 0, 1},
		{"exchanged", sasl2Request{clientID: "x", fast: fastRequest{present: true, invalidate: true, mechanism: "HT"}}, 1, 1, 1},
	} {
		*k = tokens{}
		r := sasl.Result{Mechanism: "HT"}
		if tc.expires > 0 {
			r.Token = &sasl.TokenUse{Expires: now.Add(tc.expires)}
		}
		el := c.fastToken(context.Background(), &tc.req, r)
		if k.issued != tc.issued || k.revoked != tc.revoked || (el != nil) != (tc.issued > 0) {
			t.Errorf("%s: issued %d, revoked %d", tc.name, k.issued, k.revoked)
		}
		if el != nil {
			want(t, string(el.Bytes("")), "<token xmlns='urn:xmpp:fast:0' token='HT of x' expiry='2023-12-14T22:13:20Z'/>")
		}
	}
}
