package bytestreams_test

import (
	"bytes"
	"context"
	"crypto/sha1" //nolint:gosec // XEP-0065 asks for it
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/bytestreams"
	"parley/plugins/plugintest"
	"parley/storage"
	"parley/storage/storagetest"
)

// patience ends a wait for what does not come.
const patience = 30 * time.Second

func house() []plugins.Plugin { return plugintest.Basics(bytestreams.Plugin) }

func TestScripts(t *testing.T) {
	plugintest.Run(t, plugintest.Options{Plugins: house()}, "testdata/*.txtar")
}

func settings(more string) string {
	return "servers: {processor: {components: {bytestreams: {enabled: true, host: 127.0.0.1, address: '127.0.0.1:0'" + more + "}}}}"
}

// person is a client that has files relayed.
type person struct {
	t *testing.T
	*plugintest.Client
	domain string
	ids    int
}

func login(t *testing.T, h *plugintest.House, node int, user string) *person {
	t.Helper()
	_ = h.Account(t.Context(), user, plugintest.Password) // there already: another device
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := h.Node(node).Dial(ctx, user, "r")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return &person{t: t, Client: c, domain: h.Domain()}
}

// ask returns the answer of the relay.
func (p *person) ask(typ, query string) *stanza.Element {
	p.t.Helper()
	p.ids++
	id := fmt.Sprintf("q%d", p.ids)
	if err := p.Send(fmt.Sprintf("<iq type='%s' id='%s' to='proxy.%s'>%s</iq>", typ, id, p.domain, query)); err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	for {
		el, err := p.Next(ctx)
		if err != nil {
			p.t.Fatal(err)
		}
		if el.Get("id") == id {
			return el
		}
	}
}

// address is where the relay is.
func (p *person) address() string {
	p.t.Helper()
	el := p.ask("get", "<query xmlns='http://jabber.org/protocol/bytestreams'/>")
	q := el.Child(bytestreams.NS, "query")
	if q == nil {
		p.t.Fatalf("%s", el.Bytes(""))
	}
	at := q.Child(bytestreams.NS, "streamhost")
	return net.JoinHostPort(at.Get("host"), at.Get("port"))
}

// activate returns the condition of the error, or "".
func (p *person) activate(sid string, target *person) string {
	p.t.Helper()
	el := p.ask("set", fmt.Sprintf("<query xmlns='http://jabber.org/protocol/bytestreams' sid='%s'><activate>%s</activate></query>", sid, target.JID))
	if el.Get("type") == "result" {
		return ""
	}
	return string(stanza.ParseError(el.Child(stanza.NSClient, "error")).Condition)
}

func hash(sid string, requester, target *person) string {
	sum := sha1.Sum([]byte(sid + requester.JID.String() + target.JID.String())) //nolint:gosec // XEP-0065 asks for it
	return hex.EncodeToString(sum[:])
}

// dial connects to the relay as a party of a bytestream; ok: it was told that it is
// connected.
func dial(t *testing.T, at, destination string) (c net.Conn, ok bool) {
	t.Helper()
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("\x05\x01\x00\x05\x01\x00\x03\x28" + destination + "\x00\x00")); err != nil {
		return c, false
	}
	b := make([]byte, 2+5+40+2)
	if _, err := io.ReadFull(c, b); err != nil {
		return c, false
	}
	if want := "\x05\x00\x05\x00\x00\x03\x28" + destination + "\x00\x00"; string(b) != want {
		return c, false
	}
	return c, true
}

// party is dial for who is to be connected.
func party(t *testing.T, at, destination string) net.Conn {
	t.Helper()
	c, ok := dial(t, at, destination)
	if !ok {
		t.Fatal("not connected")
	}
	return c
}

// closed waits until the relay has hung up.
func closed(t *testing.T, c net.Conn) {
	t.Helper()
	if n, err := io.Copy(io.Discard, c); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Errorf("open after %d bytes: %v", n, err)
	}
}

// passes sends bytes through and reads them.
func passes(t *testing.T, from, to net.Conn, size int) {
	t.Helper()
	sent := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	failed := make(chan error, 1)
	go func() {
		_, err := from.Write(sent)
		failed <- err
	}()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(to, got); err != nil || !bytes.Equal(got, sent) {
		t.Fatalf("of %d bytes came others: %v", size, err)
	}
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
}

// A file goes from one to the other, and an answer back, when the requester has
// activated the bytestream and not before; what one ends ends for the other
// (XEP-0065 §6).
func TestRelay(t *testing.T) {
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Config: settings("")})
	romeo, juliet := login(t, h, 0, "romeo"), login(t, h, 0, "juliet")
	at, dst := romeo.address(), hash("s1", romeo, juliet)
	b := party(t, at, dst)
	if got := romeo.activate("s1", juliet); got != "not-allowed" {
		t.Errorf("one alone: %q", got)
	}
	a := party(t, at, dst)
	if _, ok := dial(t, at, dst); ok {
		t.Error("a third is connected")
	}
	if got := juliet.activate("s1", romeo); got != "item-not-found" {
		t.Errorf("by the target: %q", got)
	}
	if got := romeo.activate("s2", juliet); got != "item-not-found" {
		t.Errorf("another one: %q", got)
	}
	if got := romeo.activate("s1", juliet); got != "" {
		t.Fatal(got)
	}
	passes(t, a, b, 1<<20)
	passes(t, b, a, 1<<16)
	if err := a.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n, err := b.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the target does not hear of the end: %d bytes, %v", n, err)
	}
	passes(t, b, a, 16)
	_ = b.Close()
	closed(t, a)
	if got := romeo.activate("s1", juliet); got != "item-not-found" {
		t.Errorf("once more: %q", got)
	}
}

// Everything has a bound: what waits, how many an account has, what one carries, and
// how long nothing comes.
func TestBounds(t *testing.T) {
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Config: settings(", streams: 1, waiting: 3, max_bytes: 1MiB")})
	romeo, juliet := login(t, h, 0, "romeo"), login(t, h, 0, "juliet")
	at := romeo.address()
	pair := func(sid string) (a, b net.Conn) {
		return party(t, at, hash(sid, romeo, juliet)), party(t, at, hash(sid, romeo, juliet))
	}
	a, b := pair("s1")
	if got := romeo.activate("s1", juliet); got != "" {
		t.Fatal(got)
	}
	pair("s2")
	if got := romeo.activate("s2", juliet); got != "resource-constraint" {
		t.Errorf("a second one: %q", got)
	}
	party(t, at, hash("s3", romeo, juliet))
	if _, ok := dial(t, at, hash("s3", romeo, juliet)); ok {
		t.Error("a fourth waits")
	}
	passes(t, a, b, 1<<20)
	_, _ = a.Write([]byte("one too many"))
	closed(t, a)
	closed(t, b)
}

// Who waits in vain is hung up on.
func TestPatience(t *testing.T) {
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Config: settings(", patience: 1s")})
	romeo, juliet := login(t, h, 0, "romeo"), login(t, h, 0, "juliet")
	closed(t, party(t, romeo.address(), hash("s1", romeo, juliet)))
	if got := romeo.activate("s1", juliet); got != "item-not-found" {
		t.Error(got)
	}
}

// And so are two who say nothing.
func TestIdle(t *testing.T) {
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Config: settings(", idle: 1s")})
	romeo, juliet := login(t, h, 0, "romeo"), login(t, h, 0, "juliet")
	at, dst := romeo.address(), hash("s1", romeo, juliet)
	a, b := party(t, at, dst), party(t, at, dst)
	if got := romeo.activate("s1", juliet); got != "" {
		t.Fatal(got)
	}
	closed(t, a)
	closed(t, b)
}

// Changed settings count for what comes then; when the relay ends, so does what it
// relays.
func TestEnd(t *testing.T) {
	var file atomic.Value
	file.Store(settings(""))
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Node: func(int) string { return file.Load().(string) }})
	romeo, juliet := login(t, h, 0, "romeo"), login(t, h, 0, "juliet")
	at, dst := romeo.address(), hash("s1", romeo, juliet)
	a, b, waits := party(t, at, dst), party(t, at, dst), party(t, at, hash("s2", romeo, juliet))
	if got := romeo.activate("s1", juliet); got != "" {
		t.Fatal(got)
	}
	passes(t, a, b, 16)
	file.Store(settings(", port: 7625"))
	if err := h.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := romeo.address(); got != "127.0.0.1:7625" {
		t.Error(got)
	}
	passes(t, a, b, 16)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := h.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	closed(t, a)
	closed(t, b)
	closed(t, waits)
}

// The requester's stanza may come to another node than the two connections, and each
// of these to another node than the other.
func TestNodes(t *testing.T) {
	c := storagetest.Postgres(t)
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Nodes: 2, Storage: func() storage.Config { return c }, Config: settings("")})
	romeo, juliet := login(t, h, 0, "romeo"), login(t, h, 1, "juliet")
	here, there := romeo.address(), juliet.address()
	if here == there {
		t.Fatalf("both nodes are at %s", here)
	}
	a, b := party(t, there, hash("s1", romeo, juliet)), party(t, there, hash("s1", romeo, juliet))
	if got := romeo.activate("s1", juliet); got != "" {
		t.Fatal(got)
	}
	passes(t, a, b, 1<<16)
	party(t, here, hash("s2", romeo, juliet))
	party(t, there, hash("s2", romeo, juliet))
	if got := romeo.activate("s2", juliet); got != "not-allowed" {
		t.Errorf("at two nodes: %q", got)
	}
	party(t, there, hash("s3", romeo, juliet))
	if got := romeo.activate("s3", juliet); got != "not-allowed" {
		t.Errorf("one alone, elsewhere: %q", got)
	}
	if got := romeo.activate("s4", juliet); got != "item-not-found" {
		t.Errorf("nowhere: %q", got)
	}
}
