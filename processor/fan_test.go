package processor_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"parley/parser"
	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/accounts"
	"parley/plugins/plugintest"
	"parley/plugins/plugintest/script"
	"parley/processor"
	"parley/router"
	"parley/router/cluster/owner"
	"parley/storage"
	"parley/storage/storagetest"
	"parley/stream"
	"parley/stream/websocket"
)

// The feature of these tests: what is sent to an address of fan.localhost goes, from
// the sender there, to everybody whom its <fan/> names.

const nsFan = "urn:parley:test:fan"

type fans struct{ house *processor.Registrar }

var fansPlugin = plugins.Plugin{
	Name: "fans",
	Components: []plugins.Maker{
		{Server: processor.Name, New: func(plugins.Env, plugins.Config) (plugins.Component, error) { return &fans{}, nil }},
		{Server: router.Name, Name: "fans-return", New: func(plugins.Env, plugins.Config) (plugins.Component, error) { return returned{}, nil }},
	},
}

// returned brings back what was sent from fan.localhost and got nowhere.
type returned struct{}

func (returned) Start(context.Context) error { return nil }
func (returned) Stop(context.Context) error  { return nil }

// Register implements router.Component.
func (returned) Register(r *router.Registrar) {
	r.Returns(func(domain string) bool { return domain == "fan.localhost" })
}

func (*fans) Start(context.Context) error { return nil }
func (*fans) Stop(context.Context) error  { return nil }

// Register implements processor.Component.
func (f *fans) Register(r *processor.Registrar) {
	f.house = r
	r.Owned(processor.Owned{
		Key:    func(st *stanza.Stanza) (string, bool) { return "", st.To.Domain() == "fan.localhost" },
		Handle: f.handle,
	})
}

func (f *fans) handle(ctx context.Context, st *stanza.Stanza, _ *owner.Hold) (*stanza.Element, error) {
	if st.Type == stanza.TypeError { // whom something did not reach
		poster := jid.MustParse(st.To.Resource())
		f.house.Emit(ctx, stanza.Make(stanza.Message, stanza.TypeHeadline, st.To.Bare(), poster, st.ID, stanza.El(nsFan, "lost").With("jid", st.From.String())))
		return nil, nil
	}
	what := st.Child(nsFan, "fan")
	var to []jid.JID
	for _, s := range strings.Fields(what.Get("to")) {
		to = append(to, jid.MustParse(s))
	}
	out := *st
	out.From, _ = st.To.WithResource(st.From.String())
	if what.Get("each") == "" {
		f.house.Fan(ctx, &out, to)
		return nil, nil
	}
	for i := range steps { // everybody's in turn with everybody's own
		next := out
		next.ID = fmt.Sprint(2 * i)
		f.house.Fan(ctx, &next, to)
		for _, j := range to {
			f.house.Emit(ctx, stanza.Make(stanza.Message, stanza.TypeHeadline, out.From, j, fmt.Sprint(2*i+1)))
		}
	}
	return nil, nil
}

const (
	steps    = 100 // of a fan to each
	fanLimit = time.Minute
	fanCalm  = "servers: {streamer: {rate: {bytes: 0, stanzas: 0}, components: {accounts: {iterations: 4096}}}}"
	fanQueue = "servers: {parser: {deployment: {workers: 2}}, processor: {deployment: {workers: 4}}, router: {deployment: {workers: 2}}, streamer: {deployment: {workers: 3}, rate: {bytes: 0, stanzas: 0}}}"
)

// houses are in which what is fanned out has to arrive.
var houses = []struct {
	name string
	opt  plugintest.Options
}{
	{"local", plugintest.Options{Config: fanCalm}},
	{"queues", plugintest.Options{Config: fanQueue}},
	{"seam", plugintest.Options{Config: fanCalm, Seam: true}},
	{"nodes", plugintest.Options{Config: fanCalm, Nodes: 2}},
	{"front-core", plugintest.Options{Config: fanCalm, Fronts: 1, Cores: 1}},
}

func eachHouse(t *testing.T, f func(*testing.T, *plugintest.House, plugintest.Options)) {
	for _, h := range houses {
		t.Run(h.name, func(t *testing.T) {
			o := h.opt
			o.Plugins = []plugins.Plugin{router.Plugin, processor.Plugin, parser.Plugin, stream.Plugin, accounts.Plugin, websocket.Plugin, fansPlugin}
			if o.Nodes > 1 || o.Fronts > 0 {
				c := storagetest.Postgres(t)
				o.Storage = func() storage.Config { return c }
			}
			f(t, plugintest.Start(t, o), o)
		})
	}
}

func TestFanScripts(t *testing.T) {
	eachHouse(t, func(t *testing.T, h *plugintest.House, o plugintest.Options) {
		r := &script.Runner{Target: h}
		if o.Nodes > 1 || o.Fronts > 0 {
			r.Target = plugintest.Spread{House: h}
		}
		script.Test(t, r, "testdata/fan*.txtar")
	})
}

// What is for everybody and what is for one of them come to each in the order of
// their making, wherever their sessions are (D3).
func TestFanKeepsItsPlace(t *testing.T) {
	const people = 7
	eachHouse(t, func(t *testing.T, h *plugintest.House, o plugintest.Options) {
		ctx, cancel := context.WithTimeout(t.Context(), fanLimit)
		defer cancel()
		var all []*plugintest.Client
		var to []string
		for i := range people {
			user := fmt.Sprintf("user%d", i)
			if err := h.Account(ctx, user, plugintest.Password); err != nil {
				t.Fatal(err)
			}
			c, err := h.Node(i%max(o.Nodes, 1)).Dial(ctx, user, "a")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			all, to = append(all, c), append(to, user+"@localhost/a")
		}
		ask := "<message to='room@fan.localhost' type='groupchat'><fan xmlns='" + nsFan + "' each='1' to='" + strings.Join(to, " ") + "'/></message>"
		if err := all[0].Send(ask); err != nil {
			t.Fatal(err)
		}
		for i, c := range all {
			for n := range 2 * steps {
				el, err := c.Next(ctx)
				if err != nil {
					t.Fatalf("%s waits for number %d: %v", to[i], n, err)
				}
				if el.Get("id") != fmt.Sprint(n) || el.Get("to") != to[i] || el.Get("from") != "room@fan.localhost/"+to[0] {
					t.Fatalf("%s got %s, want number %d", to[i], el.Bytes(""), n)
				}
			}
		}
	})
}
