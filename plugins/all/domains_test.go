package all_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	frame "parley/plugins"
	"parley/plugins/accounts"
	"parley/plugins/all"
	"parley/plugins/plugintest"
	"parley/storage"
	"parley/storage/storagetest"
)

// The domain that is added in these tests.
const added = "added.example"

// hosting is a house whose domains change.
type hosting struct {
	*plugintest.House
	t   *testing.T
	ctx context.Context
}

func host(t *testing.T, nodes int) *hosting {
	t.Helper()
	o := plugintest.Options{Plugins: all.Plugins(), Nodes: nodes, Config: "servers: {streamer: {components: {accounts: {iterations: 4096}, s2s: {address: \"127.0.0.1:0\", direct_tls: \"\"}}}, processor: {components: {upload: {base_url: \"https://files.example\"}}}}"}
	if nodes > 1 {
		c := storagetest.Postgres(t)
		o.Storage = func() storage.Config { return c }
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	return &hosting{plugintest.Start(t, o), t, ctx}
}

func (h *hosting) done(a frame.Applied, err error) {
	h.t.Helper()
	if err != nil || len(a.Behind) > 0 {
		h.t.Fatalf("%+v, %v", a, err)
	}
}

// account makes one at a domain.
func (h *hosting) account(user, domain string) {
	h.t.Helper()
	c, _ := h.Host().Contract("accounts")
	if err := c.(*accounts.Accounts).Create(h.ctx, jid.MustParse(user+"@"+domain), plugintest.Password); err != nil {
		h.t.Fatal(err)
	}
}

// login logs in on a node.
func (h *hosting) login(node int, user, domain string) *plugintest.Client {
	h.t.Helper()
	c, err := plugintest.Dial(h.ctx, h.DoorOf(node, "c2s"), domain, user, plugintest.Password, "r")
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(c.Close)
	return c
}

// answer is what an IQ is answered with.
func (h *hosting) answer(c *plugintest.Client, to, payload string) *stanza.Element {
	h.t.Helper()
	if err := c.Send("<iq type='get' id='ask' to='" + to + "'>" + payload + "</iq>"); err != nil {
		h.t.Fatal(err)
	}
	for {
		el, err := c.Next(h.ctx)
		if err != nil {
			h.t.Fatal(err)
		}
		if el.Name.Local == "iq" && el.Get("id") == "ask" {
			return el
		}
	}
}

const (
	infoQuery  = "<query xmlns='http://jabber.org/protocol/disco#info'/>"
	itemsQuery = "<query xmlns='http://jabber.org/protocol/disco#items'/>"
)

// ended returns the condition with which a stream ends.
func (h *hosting) ended(c *plugintest.Client) string {
	h.t.Helper()
	for {
		el, err := c.Next(h.ctx)
		if err != nil {
			h.t.Fatalf("the stream ends without an error: %v", err)
		}
		if el.Name.Local == "error" && el.Name.Space == stanza.NSStream {
			return el.First().Name.Local
		}
	}
}

// A domain that is added is served at once, with its services, and no longer when it
// is removed: its sessions are told (RFC 6120 §4.9.3.5), its accounts stay, and the
// other domains go on.
func TestDomainAddedAndRemoved(t *testing.T) {
	h := host(t, 1)
	if at := h.Door("s2s"); at != "" {
		t.Fatalf("localhost federates at %s", at)
	}
	romeo, err := h.Login(h.ctx, "romeo", "r")
	if err != nil {
		t.Fatal(err)
	}
	defer romeo.Close()
	control := h.Host().Control()
	h.done(control.AddDomain(h.ctx, "a test", added))
	h.done(control.AddDomain(h.ctx, "a test", added)) // it is there
	h.account("juliet", added)
	juliet := h.login(0, "juliet", added)
	items := string(h.answer(juliet, added, itemsQuery).Bytes(""))
	for _, service := range []string{"conference", "pubsub", "upload"} {
		at := service + "." + added
		if !strings.Contains(items, "'"+at+"'") && !strings.Contains(items, `"`+at+`"`) {
			t.Errorf("%s is not listed: %s", at, items)
		}
		if a := h.answer(romeo, at, infoQuery); a.Get("type") != "result" {
			t.Errorf("%s", a.Bytes(""))
		}
	}
	h.done(control.RemoveDomain(h.ctx, "a test", added))
	if got := h.ended(juliet); got != "host-gone" {
		t.Errorf("told %s", got)
	}
	if _, err := plugintest.Dial(h.ctx, h.Door("c2s"), added, "juliet", plugintest.Password, "r"); err == nil {
		t.Error("still served")
	}
	for _, at := range []string{"juliet@" + added, "conference." + added} {
		if a := h.answer(romeo, at, infoQuery); a.Get("type") != "error" {
			t.Errorf("%s", a.Bytes(""))
		}
	}
	if a := h.answer(romeo, "localhost", infoQuery); a.Get("type") != "result" {
		t.Errorf("%s", a.Bytes(""))
	}
	h.done(control.AddDomain(h.ctx, "a test", added))
	h.login(0, "juliet", added)
	if err := h.Restart(h.ctx); err != nil {
		t.Fatal(err)
	}
	h.login(0, "juliet", added)
	h.done(h.Host().Control().Unset(h.ctx, "a test", "domains")) // back to the file
	if _, err := plugintest.Dial(h.ctx, h.Door("c2s"), added, "juliet", plugintest.Password, "r"); err == nil {
		t.Error("still served")
	}
}

// What cannot be a domain is refused, and nothing has changed.
func TestDomainRefused(t *testing.T) {
	h := host(t, 1)
	control := h.Host().Control()
	for _, domain := range []string{"", "a@b", "a b", "conference.localhost", "pubsub.localhost"} {
		if _, err := control.AddDomain(h.ctx, "a test", domain); !errors.Is(err, frame.ErrDomain) {
			t.Errorf("%q: %v", domain, err)
		}
	}
	for _, domain := range []string{"localhost", "unknown.example"} {
		if _, err := control.RemoveDomain(h.ctx, "a test", domain); !errors.Is(err, frame.ErrDomain) {
			t.Errorf("%q: %v", domain, err)
		}
	}
	if v := control.ConfigVersion(); v != 0 {
		t.Errorf("version %d", v)
	}
}

// Every node follows, whichever is asked.
func TestDomainOnEveryNode(t *testing.T) {
	h := host(t, 2)
	h.done(h.HostOf(0).Control().AddDomain(h.ctx, "a test", added))
	h.account("juliet", added)
	h.account("nurse", added)
	juliet, nurse := h.login(0, "juliet", added), h.login(1, "nurse", added)
	if a := h.answer(nurse, "conference."+added, infoQuery); a.Get("type") != "result" {
		t.Errorf("%s", a.Bytes(""))
	}
	h.done(h.HostOf(1).Control().RemoveDomain(h.ctx, "a test", added))
	for _, c := range []*plugintest.Client{juliet, nurse} {
		if got := h.ended(c); got != "host-gone" {
			t.Errorf("told %s", got)
		}
	}
	for i := range 2 {
		if log, err := h.HostOf(i).Control().ConfigLog(h.ctx, 10); err != nil || !slices.ContainsFunc(log, func(e frame.ConfigEvent) bool { return e.Path == "domains" && e.By == "a test" }) {
			t.Errorf("node %d: %v, %v", i, log, err)
		}
	}
}
