package accounts_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/parser"
	"parley/parser/jid"
	"parley/plugins"
	"parley/plugins/accounts"
	"parley/plugins/plugintest"
	"parley/processor"
	"parley/router"
	"parley/router/sessions"
	"parley/stream"
)

func house(more ...plugins.Plugin) []plugins.Plugin {
	return append([]plugins.Plugin{router.Plugin, processor.Plugin, parser.Plugin, stream.Plugin, accounts.Plugin}, more...)
}

const config = `
servers: {streamer: {components: {accounts: {iterations: 4096}}}}
`

func TestScripts(t *testing.T) {
	plugintest.Run(t, plugintest.Options{Plugins: house(), Config: config}, "testdata/*.txtar")
}

// witness is a feature that keeps something of accounts. It comes before
// accounts in each band.
type witness struct {
	accounts *accounts.Accounts
	sessions *sessions.Registry
	events   chan string
	mu       sync.Mutex
	refuse   error
	atBound  func(jid.JID)
}

func (w *witness) Start(context.Context) error { return nil }
func (w *witness) Stop(context.Context) error  { return nil }

func (w *witness) Register(r *processor.Registrar) {
	processor.On(r, processor.Bound, processor.First, func(_ context.Context, e *sessions.Entry) (processor.Verdict, error) {
		if w.atBound != nil {
			w.atBound(e.JID.Bare())
		}
		return processor.Continue, nil
	})
	processor.On(r, processor.Unbound, processor.Normal, func(_ context.Context, e *sessions.Entry) (processor.Verdict, error) {
		w.events <- "unbound " + e.JID.Resource()
		return processor.Continue, nil
	})
	processor.On(r, processor.AccountRemoved, processor.Normal, func(_ context.Context, j jid.JID) (processor.Verdict, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.events <- fmt.Sprintf("removed %s, %d sessions", j.Local(), len(w.sessions.Account(j)))
		return processor.Continue, w.refuse
	})
}

// jumping is a clock whose half-minute ticks come when the test says so.
type jumping struct {
	plugins.SystemClock
	mu    sync.Mutex
	ahead time.Duration
	armed chan func() // the next tick
}

func (c *jumping) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.ahead)
}

func (c *jumping) AfterFunc(d time.Duration, f func()) func() bool {
	if d != 30*time.Second {
		return c.SystemClock.AfterFunc(d, f)
	}
	c.armed <- f
	return func() bool { return true }
}

// tick ends one wait of the component; the wait before it has been dealt with.
func (c *jumping) tick(ahead time.Duration) {
	f := <-c.armed
	c.mu.Lock()
	c.ahead += ahead
	c.mu.Unlock()
	f()
}

type scene struct {
	*testing.T
	*witness
	house *plugintest.House
	clock *jumping
	romeo jid.JID
}

func newScene(t *testing.T) *scene {
	s := &scene{T: t, witness: &witness{events: make(chan string, 16)}, clock: &jumping{armed: make(chan func(), 1)}, romeo: jid.MustParse("romeo@localhost")}
	s.house = plugintest.Start(t, plugintest.Options{Clock: s.clock, Config: config, Plugins: house(plugins.Plugin{
		Name: "a-witness", Requires: []string{accounts.Name},
		Components: []plugins.Maker{{Server: processor.Name, New: func(env plugins.Env, _ plugins.Config) (c plugins.Component, err error) {
			s.sessions = env.Sessions
			s.accounts, err = plugins.Need[*accounts.Accounts](env, accounts.Name)
			return s.witness, err
		}}},
	})})
	s.must(s.accounts.Create(t.Context(), s.romeo, "secret-123"))
	return s
}

func (s *scene) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *scene) expect(want ...string) {
	s.Helper()
	for _, w := range want {
		select {
		case got := <-s.events:
			if got != w {
				s.Fatalf("%q happened, not %q", got, w)
			}
		case <-time.After(20 * time.Second):
			s.Fatalf("%q did not happen", w)
		}
	}
}

func (s *scene) quiet() {
	s.Helper()
	select {
	case got := <-s.events:
		s.Fatalf("%q happened", got)
	default:
	}
}

// person is a client at its barest.
type person struct {
	t *testing.T
	c net.Conn
	r *bufio.Reader
}

func (s *scene) connect(resource, password string) *person {
	s.Helper()
	c, err := net.Dial("tcp", s.house.Door("c2s"))
	s.must(err)
	s.Cleanup(func() { _ = c.Close() })
	s.must(c.SetDeadline(time.Now().Add(20 * time.Second)))
	p := &person{s.T, c, bufio.NewReader(c)}
	p.send(header)
	p.until("</stream:features>")
	p.send("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>" + base64.StdEncoding.EncodeToString([]byte("\x00romeo\x00"+password)) + "</auth>")
	if strings.Contains(p.until("<success", "</failure>"), "</failure>") {
		return p
	}
	p.send(header)
	p.until("</stream:features>")
	p.send("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>" + resource + "</resource></bind></iq>")
	return p
}

const header = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' to='localhost' version='1.0'>"

func (p *person) send(s string) {
	if _, err := p.c.Write([]byte(s)); err != nil {
		p.t.Fatal(err)
	}
}

// until reads up to the first of some texts, and returns all of it.
func (p *person) until(any ...string) string {
	p.t.Helper()
	var got strings.Builder
	for {
		if slices.ContainsFunc(any, func(s string) bool { return strings.Contains(got.String(), s) }) {
			return got.String()
		}
		b, err := p.r.ReadByte()
		if err != nil {
			p.t.Fatalf("read %q, then %v", got.String(), err)
		}
		got.WriteByte(b)
	}
}

// thrown expects the stream error not-authorized, closes and awaits the end.
func (p *person) thrown() {
	p.t.Helper()
	p.until("<not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>")
	p.send("</stream:stream>")
	if _, err := io.ReadAll(p.r); err != nil {
		p.t.Fatal(err)
	}
}

// The end of an account: its sessions leave, then features forget, later once
// more, then the name is free.
func TestDelete(t *testing.T) {
	s := newScene(t)
	p := s.connect("orchard", "secret-123")
	p.until("</bind></iq>")
	s.must(s.accounts.Delete(t.Context(), s.romeo))
	p.thrown()
	s.expect("unbound orchard", "removed romeo, 0 sessions")
	if ok, err := s.accounts.Exists(t.Context(), s.romeo); ok || err != nil {
		t.Fatal(ok, err)
	}
	if err := s.accounts.Delete(t.Context(), s.romeo); !errors.Is(err, accounts.ErrUnknown) {
		t.Fatal(err)
	}
	s.connect("orchard", "secret-123") // fails, else nothing below would come in order

	s.clock.tick(10 * time.Second) // too early
	s.clock.tick(2 * time.Minute)  // the first tick has been dealt with
	s.expect("removed romeo, 0 sessions")
	for ctx := t.Context(); ; {
		var rows int
		s.must(s.house.DB().QueryRow(ctx, `SELECT count(*) FROM account`).Scan(&rows))
		if rows == 0 {
			break
		}
	}
	s.must(s.accounts.Create(t.Context(), s.romeo, "secret-456"))
	s.quiet()
}

// A name can be had again at once, and what others keep is gone before.
func TestCreateAfterDelete(t *testing.T) {
	s := newScene(t)
	s.must(s.accounts.Delete(t.Context(), s.romeo))
	s.expect("removed romeo, 0 sessions")
	s.must(s.accounts.Create(t.Context(), s.romeo, "secret-456"))
	s.expect("removed romeo, 0 sessions")
	s.connect("orchard", "secret-456").until("</bind></iq>")
}

// As long as a feature cannot forget, nobody gets the name.
func TestDeleteWaitsForFeatures(t *testing.T) {
	s := newScene(t)
	s.refuse = errors.New("disk full")
	s.must(s.accounts.Delete(t.Context(), s.romeo))
	s.expect("removed romeo, 0 sessions")
	if err := s.accounts.Create(t.Context(), s.romeo, "secret-456"); !errors.Is(err, accounts.ErrExists) {
		t.Fatal(err)
	}
	s.expect("removed romeo, 0 sessions")
	s.mu.Lock()
	s.refuse = nil
	s.mu.Unlock()
	s.must(s.accounts.Create(t.Context(), s.romeo, "secret-456"))
	s.expect("removed romeo, 0 sessions")
}

func TestDisable(t *testing.T) {
	s := newScene(t)
	p := s.connect("orchard", "secret-123")
	p.until("</bind></iq>")
	s.must(s.accounts.Disable(t.Context(), s.romeo))
	p.thrown()
	s.expect("unbound orchard")
	s.must(s.accounts.Enable(t.Context(), s.romeo))
	s.connect("orchard", "secret-123").until("</bind></iq>")
	s.quiet()
}

// An account that is disabled between login and binding gets no session.
func TestDisableWhileBinding(t *testing.T) {
	s := newScene(t)
	s.atBound = func(j jid.JID) { s.must(s.accounts.Disable(context.Background(), j)) }
	s.connect("orchard", "secret-123").thrown()
	s.expect("unbound orchard")
}

func TestLastLogin(t *testing.T) {
	s := newScene(t)
	s.connect("orchard", "secret-123").until("</bind></iq>")
	acc, err := s.accounts.Show(t.Context(), s.romeo)
	s.must(err)
	if !acc.LastLogin.IsZero() || len(acc.Sessions) != 1 {
		t.Fatalf("%+v", acc)
	}
	s.clock.tick(0)
	for acc.LastLogin.IsZero() {
		acc, err = s.accounts.Show(t.Context(), s.romeo)
		s.must(err)
	}
}
