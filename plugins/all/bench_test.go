package all_test

import (
	"context"
	"io"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/parser/jid"
	"parley/parser/stanza"
	frame "parley/plugins"
	"parley/plugins/all"
	"parley/plugins/config"
	"parley/plugins/plugintest"
	"parley/router/channel"
	"parley/storage"
	"parley/stream"
)

// tap stands at every seam of the house. While it is closed, what would go out
// to streams is counted and goes no further.
type tap struct {
	entry  atomic.Pointer[seam] // where the streamer hands stanzas over, and for whom
	closed atomic.Bool
	out    atomic.Int64
}

type seam struct {
	channel.MessageChannel
	first *channel.Envelope
}

type tapped struct {
	channel.MessageChannel
	*tap
}

// Send implements channel.MessageChannel.
func (c tapped) Send(ctx context.Context, batch []*channel.Envelope) error {
	switch {
	case c.entry.Load() == nil && batch[0].Kind == channel.Stanza && strings.HasPrefix(string(batch[0].Raw), "<message"):
		c.entry.Store(&seam{c.MessageChannel, batch[0]})
	case c.closed.Load() && (batch[0].Kind == channel.Deliver || batch[0].Kind == channel.Handled):
		for _, e := range batch {
			if e.Kind == channel.Deliver {
				c.out.Add(1)
			}
		}
		return nil
	}
	return c.MessageChannel.Send(ctx, batch)
}

const benchConfig = `
domains: [localhost]
log: {level: error}
servers:
  streamer: {c2s: "127.0.0.1:0", c2s_tls: "", http: "", https: "", tls: {plain_on_loopback: true, required: false}}
  processor: {components: {archive: {store: undeliverable}}}
`

// house starts every plugin with t at its seams; it returns the address of the door.
func (t *tap) house(b *testing.B) string {
	b.Helper()
	dir := b.TempDir()
	schema, err := frame.Schema(all.Plugins())
	if err != nil {
		b.Fatal(err)
	}
	load := func() (*config.Tree, error) {
		return config.Parse(schema, "bench.yaml", []byte(benchConfig+"data: "+dir+"\n"), config.Inputs{})
	}
	tree, err := load()
	if err != nil {
		b.Fatal(err)
	}
	log, reg := slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelError})), prometheus.NewRegistry()
	db, err := storage.Open(b.Context(), storage.Config{Driver: "sqlite", Path: filepath.Join(dir, "parley.db")}, log, reg)
	if err != nil {
		b.Fatal(err)
	}
	host, err := frame.New(b.Context(), frame.Options{
		Plugins: all.Plugins(), Tree: tree, Reload: load, DB: db, Log: log, Clock: frame.SystemClock{}, Metrics: reg, Version: "bench", Node: "bench",
		Wrap: func(c channel.MessageChannel) channel.MessageChannel { return tapped{c, t} },
	})
	if err != nil {
		b.Fatal(err)
	}
	if err := host.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		_, _ = host.Stop(ctx), db.Close()
	})
	srv, _ := host.Server(stream.Name)
	doors, err := srv.(*stream.Server).Doors(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	accounts, _ := host.Contract("accounts")
	for _, user := range []string{"romeo", "juliet"} {
		mk := accounts.(interface {
			Create(context.Context, jid.JID, string) error
		})
		if err := mk.Create(b.Context(), jid.MustParse(user+"@localhost"), "correct horse battery staple"); err != nil {
			b.Fatal(err)
		}
	}
	return doors["c2s"]
}

// One message from the bytes that a socket brought to what is handed to the
// recipient's stream: reading, parsing, every hook of every plugin, routing.
// Budget: 4 µs, 8 allocations.
func BenchmarkRouteEndToEnd(b *testing.B) {
	t := &tap{}
	door := t.house(b)
	login := func(user string) *plugintest.Client {
		c, err := plugintest.Dial(b.Context(), door, "localhost", user, "correct horse battery staple", "balcony")
		if err != nil {
			b.Fatal(err)
		}
		return c
	}
	romeo, juliet := login("romeo"), login("juliet")
	message := "<message type='chat' to='" + juliet.JID.String() + "' id='5f0a2c1e-8f1d-4c59-9f3b-7b8f0f6a1d2c'><body>" + strings.Repeat("x", 100) + "</body></message>"
	if err := romeo.Send(message); err != nil {
		b.Fatal(err)
	}
	for {
		el, err := juliet.Next(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if el.Name.Local == "message" {
			break
		}
	}
	at := t.entry.Load()
	r := stanza.NewReader(stanza.Stream, stanza.Limits{})
	r.Feed([]byte("<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"))
	if _, err := r.Next(); err != nil {
		b.Fatal(err)
	}
	t.closed.Store(true)
	defer t.closed.Store(false)
	raw, seq := []byte(message), at.first.Seq
	budget(b, 4000, 8)
	for b.Loop() {
		r.Feed(raw)
		tok, err := r.Next()
		if err != nil {
			b.Fatal(err)
		}
		_, _ = r.Next()
		seq++
		e := &channel.Envelope{Kind: channel.Stanza, Session: at.first.Session, Seq: seq, Raw: tok.Raw}
		if err := at.Send(b.Context(), []*channel.Envelope{e}); err != nil {
			b.Fatal(err)
		}
	}
	runtime.KeepAlive(romeo) // a connection that nobody holds is closed
	runtime.KeepAlive(juliet)
	if got, want := t.out.Load(), int64(seq-at.first.Seq); got != want {
		b.Fatalf("%d of %d were delivered", got, want)
	}
}

// budget prints what a benchmark may cost beside what it does.
func budget(b *testing.B, ns, allocs float64) {
	b.ReportAllocs()
	b.Cleanup(func() {
		b.ReportMetric(ns, "budget-ns/op")
		b.ReportMetric(allocs, "budget-allocs/op")
	})
}

// A chat message of 404 bytes from the socket's bytes to a parsed stanza.
// Budget: 2.5 µs, 4 allocations.
func BenchmarkParse(b *testing.B) {
	head := "<message type='chat' to='romeo@montague.example/orchard' id='5f0a2c1e-8f1d-4c59-9f3b-7b8f0f6a1d2c' xml:lang='en'><body>"
	tail := "</body><active xmlns='http://jabber.org/protocol/chatstates'/><request xmlns='urn:xmpp:receipts'/></message>"
	raw := []byte(head + strings.Repeat("x", 404-len(head)-len(tail)) + tail)
	r := stanza.NewReader(stanza.Stream, stanza.Limits{})
	r.Feed([]byte("<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"))
	if _, err := r.Next(); err != nil {
		b.Fatal(err)
	}
	jids := jid.NewCache(1000)
	budget(b, 2500, 4)
	for b.Loop() {
		r.Feed(raw)
		tok, err := r.Next()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := stanza.Parse(tok.Raw, stanza.NSClient, jids); err != nil {
			b.Fatal(err)
		}
		_, _ = r.Next()
	}
}

// An address that the cache knows. Budget: 50 ns, no allocation.
func BenchmarkJIDCache(b *testing.B) {
	jids, raw := jid.NewCache(1000), []byte("juliet@capulet.example/balcony")
	budget(b, 50, 0)
	for b.Loop() {
		if _, err := jids.Parse(raw); err != nil {
			b.Fatal(err)
		}
	}
}
