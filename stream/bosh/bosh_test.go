package bosh_test

import (
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/parser"
	"parley/plugins"
	"parley/plugins/accounts"
	"parley/plugins/ping"
	"parley/plugins/plugintest"
	"parley/plugins/plugintest/script"
	"parley/processor"
	"parley/router"
	"parley/stream"
	"parley/stream/bosh"
)

// clock lets a timer go off when a test wants it.
type clock struct {
	plugins.SystemClock
	mu   sync.Mutex
	set  *sync.Cond
	last int
	all  map[int]alarm
}

type alarm struct {
	after time.Duration
	f     func()
}

func newClock() *clock {
	c := &clock{all: map[int]alarm{}}
	c.set = sync.NewCond(&c.mu)
	return c
}

func (c *clock) AfterFunc(d time.Duration, f func()) func() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last++
	id := c.last
	c.all[id] = alarm{d, f}
	c.set.Broadcast()
	stop := c.SystemClock.AfterFunc(d, func() {
		if c.take(id) {
			f()
		}
	})
	return func() bool { stop(); return c.take(id) }
}

// take reports whether a timer had not gone off.
func (c *clock) take(id int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, there := c.all[id]
	delete(c.all, id)
	return there
}

// ring waits for a timer of that length, and lets it go off.
func (c *clock) ring(d time.Duration) { c.await(d)() }

// await waits for a timer of that length.
func (c *clock) await(d time.Duration) func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		for id, a := range c.all {
			if a.after == d {
				return func() {
					if c.take(id) {
						a.f()
					}
				}
			}
		}
		c.set.Wait()
	}
}

// runs reports whether there is a timer of that length.
func (c *clock) runs(d time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.all {
		if a.after == d {
			return true
		}
	}
	return false
}

func start(t *testing.T, config string) *plugintest.House { return startBy(t, nil, config) }

func startBy(t *testing.T, c plugins.Clock, config string) *plugintest.House {
	t.Helper()
	if config != "" {
		config = "servers: {streamer: {components: {bosh: {" + config + "}}}}"
	}
	return plugintest.Start(t, plugintest.Options{Clock: c, Config: config, Plugins: []plugins.Plugin{
		router.Plugin, processor.Plugin, parser.Plugin, stream.Plugin, accounts.Plugin, ping.Plugin, bosh.Plugin}})
}

// person makes BOSH requests by hand.
type person struct {
	t   *testing.T
	url string
	sid string
	rid int
}

const (
	first = 4000000
	attrs = " xmlns='http://jabber.org/protocol/httpbind' xmlns:xmpp='urn:xmpp:xbosh'"
)

func newPerson(t *testing.T, h *plugintest.House) *person {
	return &person{t: t, url: "http://" + h.Door("http") + bosh.Path, rid: first}
}

// post sends a body as it is; it may be called by any goroutine.
func (p *person) post(body string) string {
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodPost, p.url, strings.NewReader(body))
	if err != nil {
		p.t.Error(err)
		return ""
	}
	c := http.Client{Timeout: 30 * time.Second}
	resp, err := c.Do(req)
	if err != nil {
		p.t.Error(err)
		return ""
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Error(err)
	}
	if ct := resp.Header.Get("Content-Type"); resp.StatusCode == http.StatusOK && ct != "text/xml; charset=utf-8" {
		p.t.Errorf("Content-Type %s", ct)
	}
	return string(b)
}

func (p *person) body(rid int, more, inner string) string {
	return "<body rid='" + strconv.Itoa(rid) + "' sid='" + p.sid + "'" + attrs + more + ">" + inner + "</body>"
}

// next makes the next request.
func (p *person) next(more, inner string) string {
	p.rid++
	return p.post(p.body(p.rid, more, inner))
}

// later makes it without waiting for the answer.
func (p *person) later(more, inner string) <-chan string {
	p.rid++
	body := p.body(p.rid, more, inner)
	got := make(chan string, 1)
	go func() { got <- p.post(body) }()
	return got
}

var sids = regexp.MustCompile(` sid='([^']+)'`)

func (p *person) create(more string) string {
	p.t.Helper()
	got := p.post("<body rid='" + strconv.Itoa(p.rid) + "' to='localhost' xmpp:version='1.0' ver='1.11'" + attrs + more + "/>")
	if m := sids.FindStringSubmatch(got); m != nil {
		p.sid = m[1]
	}
	return got
}

func (p *person) want(got string, parts ...string) {
	p.t.Helper()
	for _, part := range parts {
		if !strings.Contains(got, part) {
			p.t.Fatalf("received %s, want %s", got, part)
		}
	}
}

const usual = " wait='20' hold='1'"

func ended(c string) string { return "type='terminate' condition='" + c + "'" }

// XEP-0124 §7.2, XEP-0206 §4: what the first answer says.
func TestCreation(t *testing.T) {
	h := start(t, "")
	p := newPerson(t, h)
	got := p.create(usual)
	p.want(got, "hold='1'", "requests='2'", "wait='20'", "inactivity='60'", "polling='5'", "maxpause='120'", "ver='1.11'",
		"xmpp:restartlogic='true'", "xmpp:version='1.0'", "authid=", "from='localhost'", "<stream:features ", "SCRAM-SHA-256")
	if strings.Contains(got, "starttls") { // XEP-0206 §2
		t.Error("STARTTLS is offered")
	}
	if strings.Contains(got, " ack=") { // XEP-0124 §9: only to who uses them
		t.Error("acknowledgements come unasked")
	}
	other := newPerson(t, h)
	other.want(other.create(" wait='999999' hold='50' ack='1'"), "hold='2'", "requests='3'", "wait='60'", "ack='"+strconv.Itoa(first)+"'")
	if len(p.sid) < 26 || p.sid == other.sid { // spec: weak randomness for BOSH
		t.Errorf("session identifiers %q and %q", p.sid, other.sid)
	}
	for body, want := range map[string]string{
		"<body rid='5'" + attrs + "/>":                       ended("improper-addressing"),
		"<body to='localhost'" + attrs + "/>":                ended("bad-request"),
		"<body rid='9007199254740992' to='x'" + attrs + "/>": ended("bad-request"), // XEP-0124 §14.1
		"<body rid='5' to='localhost'/>":                     ended("bad-request"),
		"":                                                   ended("bad-request"),
		"<body rid='5' to='elsewhere.example'" + attrs + "/>":  "<host-unknown",
		"<body rid='5' sid='nobody'" + attrs + "/>":            ended("item-not-found"),
		"<body rid='5' to='localhost'" + attrs + "><a></body>": ended("bad-request"),
	} {
		p.want(p.post(body), want)
	}
}

// XEP-0124 §14.2: requests are taken in their order, however they come.
func TestOrder(t *testing.T) {
	p := newPerson(t, start(t, ""))
	p.create(" wait='20' hold='2'")
	p.rid++ // the one that comes late
	late := p.body(p.rid, "", ask("a"))
	second := p.later("", ask("b"))
	third := p.later("", ask("c"))
	p.want(p.post(late), "id='a'")
	p.want(<-second+<-third, "id='b'", "id='c'")
}

// ask is a request that is answered before login as well (XEP-0077 §3.1.1).
func ask(id string) string {
	return "<iq xmlns='jabber:client' type='get' id='" + id + "'><query xmlns='jabber:iq:register'/></iq>"
}

// XEP-0124 §14.2: what is beyond the window ends the session.
func TestWindow(t *testing.T) {
	p := newPerson(t, start(t, ""))
	p.create(usual)
	p.want(p.post(p.body(first+3, "", "")), ended("item-not-found"))
	p.want(p.next("", ""), ended("item-not-found"))
}

// XEP-0124 §14.3, reliability row 28: a repeated request gets the answer it got,
// and is not taken twice; one that is too old ends the session.
func TestReliability28Replay(t *testing.T) {
	p := newPerson(t, start(t, ""))
	created := p.create(usual)
	if again := p.post("<body rid='" + strconv.Itoa(first) + "' sid='" + p.sid + "'" + attrs + "/>"); again != created {
		t.Errorf("the first answer again: %s", again)
	}
	got := p.next("", ask("a"))
	p.want(got, "id='a'")
	for range 3 {
		if again := p.post(p.body(p.rid, "", ask("a"))); again != got {
			t.Errorf("again: %s", again)
		}
	}
	for _, id := range []string{"b", "c"} {
		p.want(p.next("", ask(id)), "id='"+id+"'")
	}
	p.want(p.post(p.body(first+1, "", ask("a"))), ended("item-not-found"))
	p.want(p.next("", ""), ended("item-not-found"))
}

// XEP-0124 §14.3: a request that is held and comes again has lost its connection.
func TestHeldAgain(t *testing.T) {
	p := newPerson(t, start(t, ""))
	p.create(usual)
	one := p.later("", "")
	body := p.body(p.rid, "", "")
	two := make(chan string, 1)
	go func() { two <- p.post(body) }()
	// Whichever came first is sent away for the other.
	select {
	case got := <-one:
		p.want(got, ended("other-request"))
		one = two
	case got := <-two:
		p.want(got, ended("other-request"))
	}
	p.want(p.next("", ask("a"))+<-one, "id='a'")
}

// XEP-0124 §10: a pause is answered at once, with nothing, and only as long as
// the client may be away.
func TestPause(t *testing.T) {
	c := newClock()
	p := newPerson(t, startBy(t, c, "inactivity: 67s"))
	p.create(usual)
	held := p.later("", "")
	pause := p.body(p.rid+1, " pause='31'", "")
	p.want(p.next(" pause='31'", ""), "streams'/>")
	p.want(<-held, "streams'/>")
	c.await(31 * time.Second)
	p.want(p.post(pause), "streams'/>") // its answer was lost on the way (§14.3)
	if c.runs(67 * time.Second) {
		t.Error("inactivity counts while there is a pause")
	}
	p.want(p.next("", ask("a")), "id='a'")
	p.want(p.next(" pause='121'", ""), ended("policy-violation"))
}

// XEP-0124 §10: a client without a request is gone, and so is one that does not come
// back from its pause.
func TestInactivity(t *testing.T) {
	c := newClock()
	h := startBy(t, c, "inactivity: 67s")
	p := newPerson(t, h)
	p.create(usual)
	c.ring(67 * time.Second)
	p.want(p.next("", ""), ended("item-not-found"))

	p = newPerson(t, h)
	p.create(usual)
	p.want(p.next(" pause='31'", ""), "streams'/>")
	c.ring(31 * time.Second)
	p.want(p.next("", ""), ended("item-not-found"))
}

// XEP-0124 §13: an end in peace, from either side; XEP-0206 §6: with the error.
func TestTerminate(t *testing.T) {
	h := start(t, "")
	p := newPerson(t, h)
	p.create(usual)
	held := p.later("", "")
	p.want(p.next(" type='terminate'", ask("z"))+<-held, "type='terminate'", "id='z'")
	p.want(p.next("", ""), ended("item-not-found"))

	p = newPerson(t, h)
	p.create(usual)
	got := p.next("", "<message xmlns='jabber:client' to='x@localhost'/>") // who has not logged in
	p.want(got, ended("remote-stream-error"), "<stream:error ", "not-authorized")
}

// XEP-0124 §12: who polls is answered at once, and asks only so often.
func TestPolling(t *testing.T) {
	p := newPerson(t, start(t, "polling: 1m"))
	first := p.create(" wait='0' hold='0'")
	p.want(first, "hold='0'", "requests='1'")
	p.want(first+p.next("", ""), "<stream:features ") // on a busy machine they are not there at once
	p.want(p.next("", ""), ended("policy-violation"))
}

// Reliability row 28: what is too large is not read, and what a client sends
// that has not logged in is small.
func TestReliability28Size(t *testing.T) {
	h := start(t, "body: 100000")
	p := newPerson(t, h)
	if got := p.post(strings.Repeat("x", 100_001)); !strings.Contains(got, "too large") {
		t.Errorf("%q", got)
	}
	p.want(p.post("<body rid='5' to='localhost'"+attrs+">"+strings.Repeat(" ", 20_000)+"</body>"), ended("policy-violation"))
	p.create(usual)
	p.want(p.next("", "<x>"+strings.Repeat("x", 20_000)+"</x>"), ended("policy-violation"))
}

// There are only so many sessions.
func TestSessions(t *testing.T) {
	h := start(t, "sessions: 2")
	for range 2 {
		p := newPerson(t, h)
		p.want(p.create(usual), "sid=")
	}
	p := newPerson(t, h)
	p.want(p.create(usual), ended("policy-violation"))
}

// RFC 6455 §10.2 for pages over BOSH: they need to be allowed, and browsers ask
// before (CORS).
func TestOrigins(t *testing.T) {
	h := start(t, "origins: [web.example.org]")
	for origin, want := range map[string]int{"https://web.example.org": http.StatusNoContent, "https://evil.example": http.StatusForbidden} {
		for _, method := range []string{http.MethodOptions, http.MethodPost} {
			req, err := http.NewRequestWithContext(t.Context(), method, "http://"+h.Door("http")+bosh.Path, strings.NewReader("<body/>"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Origin", origin)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if method == http.MethodPost && want == http.StatusNoContent {
				want = http.StatusOK
			}
			allowed := map[bool]string{true: origin}[want != http.StatusForbidden]
			if got := resp.Header.Get("Access-Control-Allow-Origin"); resp.StatusCode != want || got != allowed {
				t.Errorf("%s from %s: %s, allowed %q", method, origin, resp.Status, got)
			}
		}
	}
}

// A whole session, with stream management: the scripts of the whole house run
// over BOSH as well (plugins/all, deployment bosh).
func TestSession(t *testing.T) {
	script.Test(t, &script.Runner{Target: start(t, ""), Via: script.ViaBOSH}, "testdata/*.txtar")
}
