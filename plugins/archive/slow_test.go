package archive_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"

	"parley/plugins"
	"parley/plugins/archive"
	"parley/plugins/plugintest"
	"parley/processor"
)

// shared is a plugin whose component tells the house's archive.
func shared(got chan<- *archive.Archive) plugins.Plugin {
	return plugins.Plugin{
		Name: "shared", Doc: "A test's.", Requires: []string{archive.Name},
		Components: []plugins.Maker{{Server: processor.Name, New: func(env plugins.Env, _ plugins.Config) (plugins.Component, error) {
			a, err := plugins.Need[*archive.Archive](env, archive.Name)
			got <- a
			return idle{}, err
		}}},
	}
}

// idle does nothing.
type idle struct{}

func (idle) Start(context.Context) error   { return nil }
func (idle) Stop(context.Context) error    { return nil }
func (idle) Register(*processor.Registrar) {}

// slowly lets clients take their time.
const slowly = `
servers:
  streamer: {outbox: 65536, resumption: {request_gap: 1h}}
  processor: {components: {archive: {queries: 100}}}
`

// TestReliability05SlowReadersHoldUpNobodysReplay: clients that do not read what
// they have asked for keep those waiting who bring them what they missed, and no
// other client: as many as read at the same time, when one account is told to look
// and when all are.
func TestReliability05SlowReadersHoldUpNobodysReplay(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), limit/2)
	defer cancel()
	got := make(chan *archive.Archive, 1)
	h := plugintest.Start(t, plugintest.Options{Plugins: append(house(), shared(got)), Config: slowly})
	a := <-got
	romeo := login(ctx, t, h, "romeo", "a")
	say := func(from *plugintest.Client, to, id, text string) {
		t.Helper()
		if err := from.Send(fmt.Sprintf("<message to='%s@localhost' type='chat' id='%s'><body>%s</body></message>", to, id, text)); err != nil {
			t.Fatal(err)
		}
		sync(ctx, t, from)
	}
	// Nobody acknowledges anything, so that it stays pending.
	come := func(c *plugintest.Client) {
		t.Helper()
		if err := c.Send("<enable xmlns='urn:xmpp:sm:3'/><presence/>"); err != nil {
			t.Fatal(err)
		}
		sync(ctx, t, c)
	}
	var slow []*plugintest.Client
	if err := h.Account(ctx, "slow", plugintest.Password); err != nil {
		t.Fatal(err)
	}
	for i := range archive.ReplayAtOnce {
		slow = append(slow, narrow(ctx, t, h, "slow", fmt.Sprint(i)))
		come(slow[i])
	}
	for range 8 {
		say(slow[0], "romeo", "history", strings.Repeat("x", 50_000))
	}
	say(romeo, "slow", "m", "b")
	for _, c := range slow {
		next(ctx, t, c, "m")
	}
	read := map[string]*plugintest.Client{}
	for _, name := range []string{"juliet", "nurse"} {
		read[name] = login(ctx, t, h, name, "b")
		come(read[name])
		say(romeo, name, "n", "b")
		next(ctx, t, read[name], "n")
	}

	for _, c := range slow {
		if err := c.Send(strings.Repeat("<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'/></iq>", 50)); err != nil { // 20 MB
			t.Fatal(err)
		}
	}
	for waiting() < len(slow) {
		if ctx.Err() != nil {
			t.Fatalf("%d of %d clients do not read", waiting(), len(slow))
		}
		sync(ctx, t, romeo)
	}
	a.Missed("slow@localhost")
	a.Missed("juliet@localhost")
	next(ctx, t, read["juliet"], "n")
	a.Missed("")
	next(ctx, t, read["nurse"], "n")
	if n := waiting(); n < len(slow) {
		t.Errorf("%d of %d clients do not read", n, len(slow))
	}
}

// narrow logs in over a connection that holds little.
func narrow(ctx context.Context, t *testing.T, h *plugintest.House, user, resource string) *plugintest.Client {
	t.Helper()
	conn, err := net.Dial("tcp", h.Door("c2s"))
	if err == nil {
		err = conn.(*net.TCPConn).SetReadBuffer(4096)
	}
	if err != nil {
		t.Fatal(err)
	}
	c, err := plugintest.Authenticate(ctx, conn, h.Domain(), user, plugintest.Password)
	if err == nil {
		t.Cleanup(c.Close)
		err = c.Bind(ctx, resource)
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// next reads as far as a message.
func next(ctx context.Context, t *testing.T, c *plugintest.Client, id string) {
	t.Helper()
	for {
		el, err := c.Next(ctx)
		if err != nil {
			t.Fatalf("waiting for the message %s: %v", id, err)
		}
		if el.Name.Local == "message" && el.Get("id") == id {
			return
		}
	}
}

// waiting is how many goroutines wait until a client reads.
func waiting() int {
	buf := make([]byte, 4<<20)
	return bytes.Count(buf[:runtime.Stack(buf, true)], []byte("stream.(*Session).await("))
}
