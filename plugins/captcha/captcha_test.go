package captcha

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/plugins"
	"parley/plugins/config"
	"parley/plugins/register"
)

type clock struct {
	plugins.SystemClock
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func someone(stream string) register.Applicant {
	return register.Applicant{Stream: stream, Domain: "localhost", Remote: netip.MustParseAddr("192.0.2.7"), Wait: func(f func()) { f() }}
}

func newTestGuard(t *testing.T, cfg Config) (*guard, *clock) {
	t.Helper()
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	c := &clock{now: time.Unix(1e9, 0)}
	g := &guard{env: plugins.Env{Clock: c, Log: slog.New(slog.DiscardHandler)}, cfg: cfg, open: newOpen(c, cfg.TTL), questions: prepare(cfg.Questions), leave: func() {}}
	g.count = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "x", Help: "x"}, []string{"outcome"})
	if cfg.Kind == Web {
		g.site = newSite(cfg.Page)
	}
	t.Cleanup(func() { _ = g.Stop(context.Background()) })
	return g, c
}

func asking(answers ...string) Config {
	c := *defaults()
	c.Questions = map[string][]string{"?": answers}
	return c
}

func filled(id, answer string) *form.Form {
	return (&form.Form{Kind: form.Submit, Type: "jabber:iq:register"}).Add("", "challenge", "", id).Add("", field, "", answer)
}

// condition is what a client is told.
func condition(err error) stanza.Condition {
	var e *stanza.Error
	if !errors.As(err, &e) {
		return ""
	}
	return e.Condition
}

func TestPlain(t *testing.T) {
	for _, same := range [][]string{
		{"Yellow", "yellow", " YELLOW\n", "y e l l o w", "ｙｅｌｌｏｗ"},
		{"Straße", "STRASSE", "strasse"},
		{"café", "CAFE\u0301"},
		{"42", "４２", " 42 "},
	} {
		for _, s := range same {
			if plain(s) != plain(same[0]) {
				t.Errorf("%q is not like %q", s, same[0])
			}
		}
	}
	for _, s := range []string{"", " \t\n", strings.Repeat("a", maxAnswer+1)} {
		if plain(s) != "" {
			t.Errorf("%q says something", s)
		}
	}
}

// A challenge is for one stream, answered once, for a while, and good for one account.
func TestReliability11Challenges(t *testing.T) {
	ctx := t.Context()
	g, c := newTestGuard(t, asking("yellow"))
	a, b := someone("a"), someone("b")
	fresh := func() string { return g.Challenge(a).ID }
	for name, row := range map[string]struct {
		try  func() error
		want stanza.Condition
	}{
		"no form":         {func() error { fresh(); return g.Passed(ctx, a, nil) }, stanza.NotAcceptable},
		"an empty form":   {func() error { fresh(); return g.Passed(ctx, a, &form.Form{}) }, stanza.NotAcceptable},
		"no answer":       {func() error { return g.Passed(ctx, a, filled(fresh(), "")) }, stanza.NotAcceptable},
		"a wrong one":     {func() error { return g.Passed(ctx, a, filled(fresh(), "blue")) }, stanza.NotAcceptable},
		"a made-up id":    {func() error { fresh(); return g.Passed(ctx, a, filled("guess", "yellow")) }, stanza.NotAcceptable},
		"another stream":  {func() error { return g.Passed(ctx, b, filled(fresh(), "yellow")) }, stanza.NotAcceptable},
		"another domain":  {func() error { x := a; x.Domain = "elsewhere"; return g.Passed(ctx, x, filled(fresh(), "yellow")) }, stanza.NotAcceptable},
		"an earlier form": {func() error { id := fresh(); fresh(); return g.Passed(ctx, a, filled(id, "yellow")) }, stanza.NotAcceptable},
		"too late": {func() error {
			id := fresh()
			c.pass(g.cfg.TTL + time.Second)
			return g.Passed(ctx, a, filled(id, "yellow"))
		}, stanza.NotAcceptable},
		"after a wrong one": {func() error {
			id := fresh()
			_ = g.Passed(ctx, a, filled(id, "blue"))
			return g.Passed(ctx, a, filled(id, "yellow"))
		}, stanza.NotAcceptable},
		"after the account": {func() error {
			id := fresh()
			_ = g.Passed(ctx, a, filled(id, "yellow"))
			g.Made(a)
			return g.Passed(ctx, a, filled(id, "yellow"))
		}, stanza.NotAcceptable},
		"in time": {func() error {
			id := fresh()
			c.pass(g.cfg.TTL - time.Second)
			return g.Passed(ctx, a, filled(id, " Yellow "))
		}, ""},
		"another name": {func() error {
			id := fresh()
			_ = g.Passed(ctx, a, filled(id, "yellow"))
			return g.Passed(ctx, a, filled(id, ""))
		}, ""},
	} {
		err := row.try()
		if got := condition(err); got != row.want || (err == nil) != (row.want == "") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOpenIsBounded(t *testing.T) {
	g, c := newTestGuard(t, asking("yellow"))
	first := g.Challenge(someone("first")).ID
	for i := range register.MaxStreams - 1 {
		g.Challenge(someone(fmt.Sprint(i)))
	}
	if n := g.open.Len(); n != register.MaxStreams {
		t.Fatalf("%d are open", n)
	}
	g.Challenge(someone("one more"))
	if n := g.open.Len(); n != register.MaxStreams {
		t.Fatalf("%d are open", n)
	}
	if _, _, ok := g.open.take(someone("first"), first); ok {
		t.Error("the oldest is still open")
	}
	c.pass(g.cfg.TTL + time.Second)
	g.Challenge(someone("later"))
	if n := g.open.Len(); n != 1 {
		t.Errorf("%d are open after their time", n)
	}
}

func TestEveryQuestionIsAsked(t *testing.T) {
	cfg := *defaults()
	cfg.Questions = map[string][]string{"a?": {"1"}, "b?": {"2"}, "c?": {"3"}}
	g, _ := newTestGuard(t, cfg)
	asked := map[string]bool{}
	for range 200 {
		asked[g.Challenge(someone("a")).Fields[0].Label] = true
	}
	if len(asked) != 3 {
		t.Errorf("asked: %v", asked)
	}
}

func TestValidate(t *testing.T) {
	page := func(f func(*Page)) Config {
		c := *defaults()
		c.Kind, c.Page.URL, c.Page.Verify, c.Page.Secret = Web, "https://a.example/", "https://b.example/siteverify", config.NewSecret("s")
		f(&c.Page)
		return c
	}
	for want, c := range map[string]Config{
		"ask something":     *defaults(),
		"nothing answers":   asking(),
		"an answer is":      asking("a", " "),
		"page.url: ":        page(func(p *Page) { p.URL = "a.example" }),
		"page.verify: ":     page(func(p *Page) { p.Verify = "ftp://b.example" }),
		"page.verify: the ": page(func(p *Page) { p.Verify = "http://b.example" }),
		"page.secret: is n": page(func(p *Page) { p.Secret = config.Secret{} }),
	} {
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	for _, c := range []Config{asking("a"), page(func(*Page) {}), page(func(p *Page) { p.Verify = "http://[::1]:1" })} {
		if err := c.Validate(); err != nil {
			t.Error(err)
		}
	}
}

// verifier is a service that knows codes again, and what it was asked.
type verifier struct {
	*httptest.Server
	mu    sync.Mutex
	asked []map[string][]string
}

func newVerifier(t *testing.T, answer http.HandlerFunc) *verifier {
	v := &verifier{}
	v.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		v.mu.Lock()
		v.asked = append(v.asked, r.PostForm)
		v.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(v.Close)
	return v
}

func viaPage(verify string, timeout time.Duration) Config {
	c := *defaults()
	c.Kind = Web
	c.Page = Page{URL: "https://join.example/code?lang=en", Verify: verify, Secret: config.NewSecret("hush"), Timeout: timeout}
	return c
}

// What a service does not vouch for in time, in the right words, does not pass.
func TestReliability11Page(t *testing.T) {
	says := func(s string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(s)) }
	}
	stuck := make(chan struct{})
	defer close(stuck)
	for name, row := range map[string]struct {
		answer http.HandlerFunc
		want   stanza.Condition
	}{
		"good":    {says(`{"success": true, "hostname": "join.example"}`), ""},
		"bad":     {says(`{"success": false, "error-codes": ["invalid-input-response"]}`), stanza.NotAcceptable},
		"ours":    {says(`{"success": false, "error-codes": ["invalid-input-secret"]}`), stanza.ResourceConstraint},
		"another": {says(`{"success": true, "challenge": "somebody else's"}`), stanza.NotAcceptable},
		"nothing": {says(`{}`), stanza.ResourceConstraint},
		"no JSON": {says(`<html>`), stanza.ResourceConstraint},
		"endless": {says(`{"x": "` + strings.Repeat("a", 2*maxReply) + `", "success": true}`), stanza.ResourceConstraint},
		"down":    {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, stanza.ResourceConstraint},
		"elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://evil.example/", http.StatusFound)
		}, stanza.ResourceConstraint},
		"slow": {func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-stuck:
			case <-r.Context().Done():
			}
		}, stanza.ResourceConstraint},
	} {
		t.Run(name, func(t *testing.T) {
			v := newVerifier(t, row.answer)
			timeout := 10 * time.Second
			if name == "slow" {
				timeout = 100 * time.Millisecond
			}
			g, _ := newTestGuard(t, viaPage(v.URL, timeout))
			a := someone("a")
			asked := g.Challenge(a)
			if want := "https://join.example/code?challenge=" + asked.ID + "&lang=en"; asked.URL != want || asked.Fields[0].Media[0].URI != want {
				t.Errorf("page: %+v", asked)
			}
			err := g.Passed(t.Context(), a, filled(asked.ID, " code "))
			if got := condition(err); got != row.want || (err == nil) != (row.want == "") {
				t.Errorf("%v", err)
			}
			again := g.Passed(t.Context(), a, filled(asked.ID, "code"))
			if (again == nil) != (row.want == "") {
				t.Errorf("again: %v", again)
			}
			v.mu.Lock()
			defer v.mu.Unlock()
			if len(v.asked) != 1 { // once, whatever comes of it
				t.Fatalf("asked %v", v.asked)
			}
			got := v.asked[0]
			if !slices.Equal(got["secret"], []string{"hush"}) || !slices.Equal(got["response"], []string{"code"}) || !slices.Equal(got["challenge"], []string{asked.ID}) || got["remoteip"] != nil {
				t.Errorf("asked %v", got)
			}
		})
	}
}

func TestAddressIsSentWhenWanted(t *testing.T) {
	v := newVerifier(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"success":true}`)) })
	cfg := viaPage(v.URL, time.Second*10)
	cfg.Page.Address = true
	g, _ := newTestGuard(t, cfg)
	a := someone("a")
	a.Remote = netip.MustParseAddr("::ffff:192.0.2.7")
	if err := g.Passed(t.Context(), a, filled(g.Challenge(a).ID, "code")); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(v.asked[0]["remoteip"], []string{"192.0.2.7"}) {
		t.Errorf("asked %v", v.asked)
	}
}

// What is verified at one time is bounded, and ends with the component.
func TestVerifyingIsBounded(t *testing.T) {
	arrived := make(chan struct{}, maxVerifying)
	v := newVerifier(t, func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		<-r.Context().Done()
	})
	g, _ := newTestGuard(t, viaPage(v.URL, 30*time.Second))
	var work sync.WaitGroup
	for i := range maxVerifying {
		a := someone(fmt.Sprint(i))
		id := g.Challenge(a).ID
		work.Go(func() {
			if err := g.Passed(context.Background(), a, filled(id, "code")); condition(err) != stanza.ResourceConstraint {
				t.Errorf("%v", err)
			}
		})
	}
	for range maxVerifying {
		<-arrived
	}
	a := someone("one more")
	if err := g.Passed(t.Context(), a, filled(g.Challenge(a).ID, "code")); condition(err) != stanza.ResourceConstraint {
		t.Errorf("one more: %v", err)
	}
	if err := g.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	work.Wait()
}

// A component that takes the place of another one stays when that one goes.
func TestPlaceIsTaken(t *testing.T) {
	d := &register.Door{}
	first, _ := newTestGuard(t, asking("a"))
	second, _ := newTestGuard(t, asking("a"))
	first.door, second.door = d, d
	first.Register(nil)
	second.Register(nil)
	first.leave()
	if !d.Guarded() {
		t.Error("nobody is asked any more")
	}
	second.leave()
	if d.Guarded() {
		t.Error("who has gone is asked")
	}
}
