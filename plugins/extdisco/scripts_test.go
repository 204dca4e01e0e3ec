package extdisco_test

import (
	"strings"
	"sync/atomic"
	"testing"

	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/extdisco"
	"parley/plugins/plugintest"
)

func house() []plugins.Plugin {
	return plugintest.Basics(extdisco.Plugin)
}

func TestScripts(t *testing.T) {
	plugintest.Run(t, plugintest.Options{Plugins: house()}, "testdata/*.txtar")
}

const services = "servers: {processor: {components: {extdisco: {services: {"

// TestChangesArePushed: who has asked hears what a reload has changed of it, with
// credentials; others do not (XEP-0215 §3.2).
func TestChangesArePushed(t *testing.T) {
	var file atomic.Value
	file.Store(services + "a: {type: turn, host: one.example.org, secret: north}}}}}}")
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Node: func(int) string { return file.Load().(string) }})
	login := func(name, ask string) *plugintest.Client {
		c, err := h.Login(t.Context(), name, "x")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		if ask != "" {
			send(t, c, "<iq type='get' to='localhost' id='a'><services xmlns='urn:xmpp:extdisco:2'"+ask+"/></iq>")
			next(t, c)
		}
		return c
	}
	all, stun, none := login("romeo", " "), login("juliet", " type='stun'"), login("mercutio", "")
	file.Store(services + "a: {type: turn, host: one.example.org, secret: south}, b: {type: stun, host: two.example.org}}}}}}")
	if err := h.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := next(t, all)
	for _, want := range []string{"type='set'", "action='modify'", ":romeo@localhost", "one.example.org", "action='add'", "two.example.org"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in %s", want, got)
		}
	}
	if got := next(t, stun); !strings.Contains(got, "two.example.org") || strings.Contains(got, "one.example.org") {
		t.Errorf("who asked for stun gets %s", got)
	}
	file.Store(services + "b: {type: stun, host: two.example.org}}}}}}")
	if err := h.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := next(t, all); !strings.Contains(got, "action='remove'") || strings.Contains(got, "username") {
		t.Errorf("removal: %s", got)
	}
	for _, c := range []*plugintest.Client{stun, none} { // the answer is the next thing that comes
		send(t, c, "<iq type='get' to='localhost' id='ping'><ping xmlns='urn:xmpp:ping'/></iq>")
		if got := next(t, c); !strings.Contains(got, "id='ping'") {
			t.Errorf("got %s", got)
		}
	}
}

func send(t *testing.T, c *plugintest.Client, text string) {
	t.Helper()
	if err := c.Send(text); err != nil {
		t.Fatal(err)
	}
}

func next(t *testing.T, c *plugintest.Client) string {
	t.Helper()
	el, err := c.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return string(el.Bytes(stanza.NSClient))
}
