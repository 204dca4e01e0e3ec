package clients_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"mellium.im/xmpp/stanza"
)

// converse is the folder that has Converse.js, a client that people use. The
// script gets it from npm when it is not there.
func converse() (string, error) {
	var complaint strings.Builder
	cmd := exec.Command("../../../.ci/converse")
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("converse.js: %w: %s", err, complaint.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// device is Converse.js in a browser that knows nothing from before: storage of
// its own, like one more device.
type device struct{ page }

// newDevice opens Converse.js and logs in by its form.
func newDevice(t *testing.T, browser context.Context, address, user string) *device {
	t.Helper()
	tab, cancel := chromedp.NewContext(browser, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	d := &device{page{t, tab}}
	d.do(chromedp.Navigate(address), chromedp.WaitVisible("#converse-login-jid"),
		chromedp.SendKeys("#converse-login-jid", user+"@localhost"), chromedp.SendKeys("#converse-login-password", password),
		chromedp.Click("#converse-login [type=submit]"))
	d.has("converse-user-profile", user)
	return d
}

// has waits until an element that fits the selector is seen and has the text in it.
func (d *device) has(selector, text string) {
	d.t.Helper()
	d.do(chromedp.PollFunction[chromedp.Void](
		`(selector, text) => [...document.querySelectorAll(selector)].some(e => e.checkVisibility() && e.innerText.includes(text))`,
		chromedp.WithPollingArgs(selector, text), chromedp.WithPollingMutation(), chromedp.WithPollingTimeout(patience)))
}

// enter makes or enters a room as a person does: by its name.
func (d *device) enter(room, nick string) {
	d.t.Helper()
	const form = "form.add-chatroom "
	d.do(chromedp.Evaluate[chromedp.Void](`document.querySelector("converse-rooms-list .show-add-muc-modal").click()`),
		chromedp.WaitVisible(form+"input[name=chatroom]"), chromedp.SendKeys(form+"input[name=chatroom]", room),
		chromedp.SetValue(form+"[name=nickname]", nick), chromedp.Click(form+"[name=join]"),
		chromedp.WaitVisible(input))
}

// input is where a room's messages are written.
const input = "converse-muc textarea.chat-textarea"

// say writes a message in the room and sends it with the enter key.
func (d *device) say(text string) {
	d.t.Helper()
	d.do(chromedp.SendKeys(input, text+kb.Enter))
	d.hears(text)
}

func (d *device) hears(text string) {
	d.t.Helper()
	d.has("converse-muc .chat-msg__text", text)
}

// conversePage serves Converse.js, and returns the page's address with the server's door: kind is websocket
// or bosh, as the page wants it.
func conversePage(t *testing.T, kind, door string) string {
	t.Helper()
	need(t, func() error { _, err := chromium(); return err })
	need(t, func() error { _, err := converse(); return err })
	folder, err := converse()
	if err != nil {
		t.Fatal(err)
	}
	files := http.NewServeMux()
	files.Handle("/", http.FileServer(http.Dir("testdata/converse")))
	files.Handle("/dist/", http.FileServer(http.Dir(folder)))
	web := httptest.NewServer(files) // another origin than the server's
	t.Cleanup(web.Close)
	return web.URL + "/?" + url.Values{kind: {door}}.Encode()
}

// A client of the browser that people use meets another client in a room: it
// finds the service, makes the room, talks, comes back and reads what it has
// missed; on another device it is in the room by itself, because the first one
// has kept a bookmark (XEP-0402).
func TestConverse(t *testing.T) {
	s := start(t, "alice", "bob")
	address := conversePage(t, "websocket", "wss://"+s.Door("https")+"/xmpp-websocket")

	const room = "garden@conference.localhost"
	bob := s.newPeer(t, "bob@localhost")
	browser := newBrowser(t)
	alice := newDevice(t, browser, address, "alice")
	defer alice.picture("converse.png")
	alice.enter("garden", "Alice")
	alice.say("first")

	bob.enter(t, room, "Bob")
	alice.has("converse-muc .occupant-nick", "Bob")
	alice.say("second & <b>bold</b>")
	if m := bob.hears(t, "second & <b>bold</b>"); m.From.String() != room+"/Alice" {
		t.Errorf("it comes from %s", m.From)
	}
	bob.write(t, room, stanza.GroupChatMessage, "and the other way, 🙂")
	alice.hears("and the other way, 🙂")

	// The tab is closed for a while.
	alice.do(chromedp.Navigate("about:blank"))
	bob.write(t, room, stanza.GroupChatMessage, "while you were away")
	bob.hears(t, "while you were away")
	alice.do(chromedp.Navigate(address))
	alice.hears("while you were away")
	alice.say("back again")
	bob.hears(t, "back again")

	phone := newDevice(t, browser, address, "alice")
	phone.has("converse-rooms-list", "garden")
	for _, text := range []string{"first", "second & <b>bold</b>", "and the other way, 🙂", "while you were away", "back again"} {
		phone.hears(text)
	}
	phone.say("from the other device")
	alice.hears("from the other device")
	bob.hears(t, "from the other device")
}

// XEP-0206: the same client where proxies let nothing but requests and responses pass.
func TestConverseBOSH(t *testing.T) {
	s := start(t, "alice", "bob")
	address := conversePage(t, "bosh", "https://"+s.Door("https")+"/http-bind")
	const room = "hall@conference.localhost"
	bob := s.newPeer(t, "bob@localhost")
	alice := newDevice(t, newBrowser(t), address, "alice")
	defer alice.picture("converse-bosh.png")
	bob.enter(t, room, "Bob")
	bob.open(t, room)
	alice.enter("hall", "Alice")
	alice.has("converse-muc .occupant-nick", "Bob")
	alice.say("through requests & <b>responses</b>")
	bob.hears(t, "through requests & <b>responses</b>")
	bob.write(t, room, stanza.GroupChatMessage, "and the other way, 🙂")
	alice.hears("and the other way, 🙂")
}

// picture keeps what the page looks like, for whoever looks into a failure.
func (d *device) picture(name string) {
	if os.Getenv("PARLEY_TEST_PICTURES") == "" {
		return
	}
	if png, err := chromedp.Run(d.tab, chromedp.CaptureScreenshot()); err == nil {
		_ = os.WriteFile(os.Getenv("PARLEY_TEST_PICTURES")+"/"+name, png, 0o600)
	}
}
