package component_test

import (
	"bufio"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"mellium.im/xmlstream"
	"mellium.im/xmpp"
	mellium "mellium.im/xmpp/component"
	mjid "mellium.im/xmpp/jid"
	mstanza "mellium.im/xmpp/stanza"

	"parley/parser"
	"parley/plugins"
	"parley/plugins/accounts"
	"parley/plugins/archive"
	"parley/plugins/disco"
	"parley/plugins/ping"
	"parley/plugins/plugintest"
	"parley/plugins/plugintest/script"
	"parley/plugins/presence"
	"parley/plugins/roster"
	"parley/processor"
	"parley/router"
	"parley/storage"
	"parley/storage/storagetest"
	"parley/stream"
	"parley/stream/component"
)

func house() []plugins.Plugin {
	return []plugins.Plugin{router.Plugin, processor.Plugin, parser.Plugin, stream.Plugin, accounts.Plugin, ping.Plugin, roster.Plugin, presence.Plugin, disco.Plugin, component.Plugin}
}

const section = `
servers:
  streamer:
    components:
      component:
        address: 127.0.0.1:0
        components:
          irc.localhost: {secret: s3cret, name: A gateway}
          away.localhost: {secret: other}
`

func TestScripts(t *testing.T) {
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Config: section})
	script.Test(t, &script.Runner{Target: plugintest.Components(h)}, "testdata/*.txtar")
}

// The same on a front and its core: that one knows whose components are away.
func TestScriptsOnAFrontAndItsCore(t *testing.T) {
	c := storagetest.Postgres(t)
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Config: section, Fronts: 1, Cores: 1, Storage: func() storage.Config { return c }})
	script.Test(t, &script.Runner{Target: plugintest.Components(h)}, "testdata/*.txtar")
}

// With what keeps messages and presence.
func TestStored(t *testing.T) {
	h := plugintest.Start(t, plugintest.Options{Plugins: append(house(), archive.Plugin), Config: section})
	script.Test(t, &script.Runner{Target: plugintest.Components(h)}, "testdata/stored/*.txtar")
}

// The example of XEP-0114 §3 does not give its secret; this one is from
// coreutils' sha1sum.
func TestHandshake(t *testing.T) {
	if got := component.Handshake("3BF96D32", "s3cret"); got != "a984b871214a298f0f743fcd25f99b10838ba12b" {
		t.Error(got)
	}
}

// limit ends a test that would hang.
func limit(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// wire is a component by hand.
type wire struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

// join opens a stream and proves the secret.
func join(t *testing.T, address, domain, key string) *wire {
	t.Helper()
	c, err := plugintest.DialComponent(limit(t), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	w := &wire{t, c, nil}
	w.r = bufio.NewReader(w.Conn)
	w.send("<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' to='" + domain + "'>")
	w.until("<stream:stream ")
	w.until(">")
	w.send("<handshake>" + key + "</handshake>")
	return w
}

func (w *wire) send(s string) {
	w.t.Helper()
	if _, err := io.WriteString(w.Conn, s); err != nil {
		w.t.Fatal(err)
	}
}

// until reads up to the text.
func (w *wire) until(text string) {
	w.t.Helper()
	var b strings.Builder
	for !strings.HasSuffix(b.String(), text) {
		c, err := w.r.ReadByte()
		if err != nil {
			w.t.Fatalf("received %q, then %v; want %q", b.String(), err, text)
		}
		b.WriteByte(c)
	}
}

// Rule 69: one defined policy. Refuse keeps the first connection.
func TestRule69SecondConnectionRefused(t *testing.T) {
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Config: section + "        conflict: refuse\n"})
	first := join(t, h.Door("component"), "irc.localhost", "s3cret")
	first.until("<handshake/>")
	join(t, h.Door("component"), "irc.localhost", "s3cret").until("<conflict ")
	first.send("<iq type='get' id='p1' from='irc.localhost' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>")
	first.until("id='p1'")
}

// A component whose entry goes, or changes its secret, has to go; the others
// stay, and a new address is listened on at once.
func TestReconfigure(t *testing.T) {
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Config: section})
	irc := join(t, h.Door("component"), "irc.localhost", "s3cret")
	irc.until("<handshake/>")
	away := join(t, h.Door("component"), "away.localhost", "other")
	away.until("<handshake/>")
	ctl := h.Host().Control()
	set := func(key, value string) {
		t.Helper()
		if _, err := ctl.Reconfigure(limit(t), "test", stream.Name, "component", map[string]string{key: value}); err != nil {
			t.Fatal(err)
		}
	}
	set("conflict", "refuse")
	set(`components."away.localhost"`, "false")
	away.until("<host-gone ")
	irc.send("<iq type='get' id='p1' from='irc.localhost' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>")
	irc.until("id='p1'")
	before := h.Door("component")
	set("address", "localhost:0")
	srv, _ := h.Host().Server(stream.Name)
	moved := srv.(*stream.Server).Addresses()["component"]
	if moved == before {
		t.Errorf("still at %s", moved)
	}
	join(t, moved, "irc.localhost", "s3cret").until("<conflict ")
	if _, err := ctl.Stop(limit(t), "test", stream.Name, "component"); err != nil {
		t.Fatal(err)
	}
	irc.until("<system-shutdown ")
	if c, err := net.Dial("tcp", moved); err == nil {
		_ = c.Close()
		t.Error("the door is still open")
	}
}

func TestConfig(t *testing.T) {
	for bad, want := range map[string]string{
		"irc@localhost: {secret: x}": "is not a domain",
		"IRC.localhost: {secret: x}": "is not a domain",
		"irc.localhost: {}":          "is needed",
		"localhost: {secret: x}":     "served by this server itself",
	} {
		o := plugintest.Options{Plugins: house(), Config: "servers: {streamer: {components: {component: {components: {" + bad + "}}}}}"}
		err := startFails(t, o)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// recorder lets a house fail without failing the test.
type recorder struct {
	testing.TB
	err error
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.err = fmt.Errorf(format, args...)
	panic(r)
}

func startFails(t *testing.T, o plugintest.Options) (err error) {
	r := &recorder{TB: t}
	defer func() {
		if p := recover(); p != nil && p != any(r) {
			panic(p)
		}
		err = r.err
	}()
	plugintest.Start(r, o)
	return nil
}

// An independent implementation of the other side: mellium.im/xmpp.
func TestMellium(t *testing.T) {
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Config: section})
	ctx := limit(t)
	c, err := net.Dial("tcp", h.Door("component"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := mellium.NewSession(ctx, mjid.MustParse("irc.localhost"), []byte("s3cret"), c)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() {
		served <- s.Serve(xmpp.HandlerFunc(func(t xmlstream.TokenReadEncoder, start *xml.StartElement) error {
			if start.Name.Local != "iq" {
				return nil
			}
			iq, err := mstanza.NewIQ(*start)
			if err != nil || iq.Type != mstanza.GetIQ {
				return err
			}
			_, err = xmlstream.Copy(t, iq.Result(nil))
			return err
		}))
	}()
	resp, err := s.SendIQElement(ctx, xmlstream.Wrap(nil, xml.StartElement{Name: xml.Name{Space: "urn:xmpp:ping", Local: "ping"}}),
		mstanza.IQ{Type: mstanza.GetIQ, From: mjid.MustParse("user@irc.localhost"), To: mjid.MustParse("localhost")})
	if err != nil {
		t.Fatal(err)
	}
	tok, err := resp.Token()
	if err != nil {
		t.Fatal(err)
	}
	if start, ok := tok.(xml.StartElement); !ok || !hasAttr(start, "type", "result") {
		t.Errorf("answer %v", tok)
	}
	if err := resp.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil && !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	_ = c.Close()
}

func hasAttr(start xml.StartElement, name, value string) bool {
	for _, a := range start.Attr {
		if a.Name.Local == name && a.Value == value {
			return true
		}
	}
	return false
}

// Another one: slixmpp. Debian calls it python3-slixmpp.
func TestSlixmpp(t *testing.T) {
	python := "/usr/bin/python3"
	if out, err := exec.Command(python, "-c", "import slixmpp").CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("slixmpp is missing: %s", out)
		}
		t.Skip("slixmpp is not installed (apt-get install python3-slixmpp)")
	}
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Config: section})
	host, port, err := net.SplitHostPort(h.Door("component"))
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(limit(t), python, "testdata/slixmpp_component.py", host, port).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "pong from localhost") {
		t.Errorf("%v\n%s", err, out)
	}
}
