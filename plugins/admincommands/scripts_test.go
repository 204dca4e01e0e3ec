package admincommands_test

import (
	"strings"
	"testing"
	"time"

	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/admincommands"
	"parley/plugins/archive"
	"parley/plugins/commands"
	"parley/plugins/plugintest"
)

func house() []plugins.Plugin {
	return plugintest.Basics(archive.Plugin, commands.Plugin, admincommands.Plugin)
}

func TestScripts(t *testing.T) {
	plugintest.Run(t, plugintest.Options{Plugins: house()}, "testdata/*.txtar")
}

const admins = "servers: {processor: {components: {admincommands: {admins: [romeo@localhost]}}}}"

// command runs one to its end and returns what came last.
func command(t *testing.T, c *plugintest.Client, node, fields string) string {
	t.Helper()
	const open = "<iq type='set' to='localhost' id='c'><command xmlns='http://jabber.org/protocol/commands' node='http://jabber.org/protocol/admin#"
	send(t, c, open+node+"'/></iq>")
	el := next(t, c)
	session := el.First().Get("sessionid")
	send(t, c, open+node+"' sessionid='"+session+"'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>http://jabber.org/protocol/admin</value></field>"+fields+"</x></command></iq>")
	for {
		if el = next(t, c); el.Name.Local == "iq" {
			return string(el.Bytes(stanza.NSClient))
		}
	}
}

func send(t *testing.T, c *plugintest.Client, text string) {
	t.Helper()
	if err := c.Send(text); err != nil {
		t.Fatal(err)
	}
}

func next(t *testing.T, c *plugintest.Client) *stanza.Element {
	t.Helper()
	el, err := c.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return el
}

func login(t *testing.T, h *plugintest.House, name string) *plugintest.Client {
	t.Helper()
	c, err := h.Login(t.Context(), name, "x")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestHalt: an administrator ends the server, and whoever runs the process learns
// whether to begin again (XEP-0133 §4.30, XEP-0133 §4.31).
func TestHalt(t *testing.T) {
	for node, again := range map[string]bool{"restart": true, "shutdown": false} {
		h := plugintest.Start(t, plugintest.Options{Plugins: house(), Config: admins})
		romeo := login(t, h, "romeo")
		if got := command(t, romeo, node, "<field var='delay'><value>soon</value></field>"); !strings.Contains(got, "not-acceptable") {
			t.Errorf("%s soon: %s", node, got)
		}
		if got := command(t, romeo, node, "<field var='delay'><value>0</value></field>"); !strings.Contains(got, "completed") {
			t.Errorf("%s: %s", node, got)
		}
		select {
		case got := <-h.Host().Halts():
			if got != again {
				t.Errorf("%s: again %v", node, got)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%s: nothing ends", node)
		}
	}
}

// TestWelcome: who is new is welcomed once, whatever becomes of the text
// (XEP-0133 §4.27).
func TestWelcome(t *testing.T) {
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Config: admins})
	romeo := login(t, h, "romeo")
	welcome := func(text string) {
		if got := command(t, romeo, "set-welcome", "<field var='welcome'><value>"+text+"</value></field>"); !strings.Contains(got, "completed") {
			t.Fatal(got)
		}
	}
	welcome("well met")
	juliet := login(t, h, "juliet")
	ids := map[string]bool{}               // what a device has only just taken may come twice: it is the same message
	say := func(what string) (heard int) { // and everything is read that comes before the answer to a ping
		send(t, juliet, what+"<iq type='get' to='localhost' id='p'><ping xmlns='urn:xmpp:ping'/></iq>")
		for el := next(t, juliet); el.Name.Local != "iq"; el = next(t, juliet) {
			if el.Name.Local == "message" && !ids[el.Get("id")] {
				heard++
				ids[el.Get("id")] = true
			}
		}
		return heard
	}
	arrive := func() int { return say("<presence/>") + say("") + say("<presence type='unavailable'/>") }
	if n := arrive(); n != 1 {
		t.Errorf("welcomed %d times", n)
	}
	welcome("well met again")
	if n := arrive(); n != 0 {
		t.Errorf("welcomed again, %d times", n)
	}
}
