package mucsub_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/archive"
	"parley/plugins/blocking"
	"parley/plugins/carbons"
	"parley/plugins/muc"
	"parley/plugins/mucsub"
	"parley/plugins/plugintest"
	"parley/plugins/plugintest/script"
	"parley/processor"
	"parley/storage"
	"parley/storage/storagetest"
)

func house() []plugins.Plugin {
	return plugintest.Basics(archive.Plugin, blocking.Plugin, carbons.Plugin, muc.Plugin, mucsub.Plugin)
}

func TestScripts(t *testing.T) {
	storagetest.EachConfig(t, func(t *testing.T, c storage.Config) {
		plugintest.Run(t, plugintest.Options{Plugins: house(), Storage: func() storage.Config { return c }}, "testdata/*.txtar")
	})
}

// Rooms and those who follow them on different nodes.
func TestScriptsOnNodes(t *testing.T) {
	c := storagetest.Postgres(t)
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Nodes: 3, Storage: func() storage.Config { return c }})
	script.Test(t, &script.Runner{Target: plugintest.Spread{House: h}}, "testdata/*.txtar")
}

// What can be written for one account, and for one room, is bounded.
func TestSubscriptionsAreBounded(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Config: "servers: {processor: {components: {mucsub: {max_per_account: 2, max_per_room: 2}}}}"})
	romeo, err := h.Login(ctx, "romeo", "a")
	if err != nil {
		t.Fatal(err)
	}
	defer romeo.Close()
	ask := func(c *plugintest.Client, to, xml string) *stanza.Element {
		t.Helper()
		if err := c.Send("<iq type='set' id='q' to='" + to + "'>" + xml + "</iq>"); err != nil {
			t.Fatal(err)
		}
		for {
			el, err := c.Next(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if el.Get("id") == "q" {
				return el
			}
		}
	}
	follow := func(c *plugintest.Client, room string) bool {
		t.Helper()
		el := ask(c, room, "<subscribe xmlns='urn:xmpp:mucsub:0'><event node='urn:xmpp:mucsub:nodes:messages'/></subscribe>")
		if refused := stanza.ParseError(el.Child(stanza.NSClient, "error")); refused != nil && refused.Condition != stanza.ResourceConstraint {
			t.Errorf("%s", el.Bytes(""))
		}
		return el.Get("type") == "result"
	}
	for i := range 3 {
		room := fmt.Sprintf("room%d@conference.localhost", i)
		if err := romeo.Send("<presence to='" + room + "/romeo'><x xmlns='http://jabber.org/protocol/muc'/></presence>"); err != nil {
			t.Fatal(err)
		}
		ask(romeo, room, "<query xmlns='http://jabber.org/protocol/muc#owner'><x xmlns='jabber:x:data' type='submit'/></query>")
		if got := follow(romeo, room); got != (i < 2) {
			t.Errorf("subscription %d of an account: %v", i, got)
		}
	}
	for i := range 2 {
		c, err := h.Login(ctx, fmt.Sprintf("somebody%d", i), "a")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if got := follow(c, "room0@conference.localhost"); got != (i < 1) {
			t.Errorf("subscription %d of a room: %v", i+1, got)
		}
	}
}

// lastWord is a feature by which those after it never hear of a change of affiliation: so it is when the
// process ends between the change's commit and what follows it.
type lastWord struct{}

func (lastWord) Start(context.Context) error { return nil }
func (lastWord) Stop(context.Context) error  { return nil }

func (lastWord) Register(r *processor.Registrar) {
	processor.On(r, muc.Affiliated, processor.Early, func(context.Context, *muc.Affiliating) (processor.Verdict, error) {
		return processor.Stop, nil
	})
}

// Who was banned hears nothing more, also when nobody had the time to end the subscription (XEP-0045 §9.1).
func TestOutcastsHearNothing(t *testing.T) {
	deaf := plugins.Plugin{Name: "lastword", Requires: []string{muc.Name}, Components: []plugins.Maker{{Server: processor.Name, New: func(plugins.Env, plugins.Config) (plugins.Component, error) { return lastWord{}, nil }}}}
	plugintest.Run(t, plugintest.Options{Plugins: append(house(), deaf)}, "testdata/crash/*.txtar")
}
