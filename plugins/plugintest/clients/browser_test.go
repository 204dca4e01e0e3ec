package clients_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"testing"

	"github.com/chromedp/chromedp"
)

// chromium is what the browser is called where there is one.
func chromium() (string, error) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no chromium")
}

// newBrowser starts a browser without a window, and without any business of
// its own in the network.
func newBrowser(t *testing.T) context.Context {
	t.Helper()
	path, err := chromium()
	if err != nil {
		t.Fatal(err)
	}
	options := []chromedp.ExecAllocatorOption{chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()), chromedp.Env(home(t)...)}
	for _, flag := range []string{
		"headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
		"disable-component-update", "disable-sync", "ignore-certificate-errors", "disable-dev-shm-usage",
	} {
		options = append(options, chromedp.Flag(flag, true))
	}
	options = append(options, chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")) // whatever a page wants
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("browser: %v", err)
	}
	return ctx
}

// page is testdata/page in a tab.
type page struct {
	t   *testing.T
	tab context.Context
}

func newPage(t *testing.T, browser context.Context, url string) *page {
	t.Helper()
	tab, cancel := chromedp.NewContext(browser)
	t.Cleanup(cancel)
	p := &page{t, tab}
	p.do(chromedp.Navigate(url), chromedp.WaitVisible("#login"))
	return p
}

func (p *page) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := chromedp.Do(p.tab, steps...); err != nil {
		has, _ := chromedp.Run(p.tab, chromedp.Evaluate[string](`document.body.innerText`))
		p.t.Fatalf("page: %v; it has\n%s", err, has)
	}
}

// shows waits until an element has a text in it.
func (p *page) shows(id, text string) {
	p.t.Helper()
	p.do(chromedp.PollFunction[chromedp.Void](`(id, text) => document.getElementById(id).textContent.includes(text)`,
		chromedp.WithPollingArgs(id, text), chromedp.WithPollingMutation(), chromedp.WithPollingTimeout(patience)))
}

func (p *page) login(url, jid, password string) {
	p.t.Helper()
	p.do(chromedp.SetValue("#url", url), chromedp.SetValue("#jid", jid), chromedp.SetValue("#password", password), chromedp.Click("#login"))
}

func (p *page) say(to, body string) {
	p.t.Helper()
	p.do(chromedp.SetValue("#to", to), chromedp.SetValue("#body", body), chromedp.Click("#send"))
}

// Two tabs and a client outside of the browser talk, each to each.
func TestBrowser(t *testing.T) {
	need(t, func() error { _, err := chromium(); return err })
	s := start(t, "alice", "bob", "carol")
	web := httptest.NewServer(http.FileServer(http.Dir("testdata/page"))) // another origin than the server's
	t.Cleanup(web.Close)
	url := "wss://" + s.Door("https") + "/xmpp-websocket"
	carol := s.newPeer(t, "carol@localhost")
	browser := newBrowser(t)

	t.Run("wrong password", func(t *testing.T) {
		thief := newPage(t, browser, web.URL)
		thief.login(url, "alice@localhost", "a guess")
		thief.shows("state", "failed: not-authorized")
	})

	alice, bob := newPage(t, browser, web.URL), newPage(t, browser, web.URL)
	alice.login(url, "alice@localhost", password)
	bob.login(url, "bob@localhost", password)
	alice.shows("state", "online as alice@localhost/page")
	bob.shows("state", "online as bob@localhost/page")

	alice.say("bob@localhost", "from tab to tab & <back>")
	bob.shows("talk", "alice@localhost/page: from tab to tab & <back>")
	bob.say("alice@localhost", "and the other way, 🙂")
	alice.shows("talk", "bob@localhost/page: and the other way, 🙂")

	alice.say("carol@localhost", "out of the browser")
	m := carol.hears(t, "out of the browser")
	carol.say(t, m.From.String(), "into the browser")
	alice.shows("talk", "into the browser")
}

// One tab follows another (XEP-0163): it hears of what is published by its +notify,
// and reads it; what came before is there when it comes back.
func TestBrowserFeed(t *testing.T) {
	need(t, func() error { _, err := chromium(); return err })
	s := start(t, "alice", "bob")
	web := httptest.NewServer(http.FileServer(http.Dir("testdata/page")))
	t.Cleanup(web.Close)
	url := "wss://" + s.Door("https") + "/xmpp-websocket"
	browser := newBrowser(t)
	alice, bob := newPage(t, browser, web.URL), newPage(t, browser, web.URL)
	alice.login(url, "alice@localhost", password)
	bob.login(url, "bob@localhost", password)
	alice.shows("state", "online")
	bob.shows("state", "online")

	bob.do(chromedp.SetValue("#author", "alice@localhost"), chromedp.Click("#follow"))
	bob.shows("people", "alice@localhost/page: available")
	for _, title := range []string{"Down the rabbit hole & <further>", "A mad tea party"} {
		alice.do(chromedp.SetValue("#title", title), chromedp.Click("#publish"))
		alice.shows("feed", "alice@localhost: "+title) // its author's devices hear of it too
		bob.shows("feed", "alice@localhost: "+title)
	}

	bob.do(chromedp.Navigate(web.URL), chromedp.WaitVisible("#login"))
	bob.login(url, "bob@localhost", password)
	bob.shows("state", "online")
	bob.do(chromedp.SetValue("#author", "alice@localhost"), chromedp.Click("#read"))
	bob.shows("feed", "alice@localhost: Down the rabbit hole & <further>")
	bob.shows("feed", "alice@localhost: A mad tea party")
}
