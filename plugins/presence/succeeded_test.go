package presence_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/plugintest"
	"parley/plugins/presence"
	"parley/processor"
	"parley/router/sessions"
)

// undertaker ends sessions that others had before.
type undertaker struct {
	env   plugins.Env
	house *processor.Registrar
}

func (*undertaker) Start(context.Context) error       { return nil }
func (*undertaker) Stop(context.Context) error        { return nil }
func (u *undertaker) Register(r *processor.Registrar) { u.house = r }

// RFC 6121 §4.5.2: the end of a dead node's session is told late. Who has come
// back with its address meanwhile is not gone.
func TestReliability32SessionThatCameBackIsNotGone(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	u := &undertaker{}
	dig := plugins.Plugin{Name: "undertaker", Doc: "Ends sessions.", Components: []plugins.Maker{{Server: processor.Name, New: func(env plugins.Env, _ plugins.Config) (plugins.Component, error) {
		u.env = env
		return u, nil
	}}}}
	h := plugintest.Start(t, plugintest.Options{Plugins: append(house(), dig)})
	var all []*plugintest.Client
	for _, resource := range []string{"phone", "desk"} {
		c, err := h.Login(ctx, "romeo", resource)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		all = append(all, c)
		hear(ctx, t, c, "<presence/>")
	}
	phone, desk := all[0], all[1]
	now, ok := u.env.Sessions.Find(phone.JID)
	if !ok {
		t.Fatal("not bound")
	}
	before := *now
	before.Node = "dead"
	if _, err := processor.Fire(ctx, u.house, processor.Unbound, &before); err != nil {
		t.Fatal(err)
	}
	said := hear(ctx, t, desk, "")[phone.JID.String()]
	if len(said) == 0 || said[len(said)-1] == stanza.TypeUnavailable {
		t.Errorf("the phone seems to be gone: %q", said)
	}
	if _, err := processor.Fire(ctx, u.house, processor.Unbound, &sessions.Entry{Ref: now.Ref, State: now.State}); err != nil {
		t.Fatal(err)
	}
	if said = hear(ctx, t, desk, "")[phone.JID.String()]; len(said) != 1 || said[0] != stanza.TypeUnavailable {
		t.Errorf("the phone itself has ended: %q", said)
	}
}

// slow keeps the first end of a session waiting, before its contacts are told.
type slow struct {
	once            sync.Once
	begun, on, over chan struct{}
}

func (*slow) Start(context.Context) error { return nil }
func (*slow) Stop(context.Context) error  { return nil }

func (s *slow) Register(r *processor.Registrar) {
	var last sync.Once
	processor.On(r, presence.Became, processor.Last, func(_ context.Context, t *presence.Transition) (processor.Verdict, error) {
		if !t.Session.Available {
			s.once.Do(func() { close(s.begun); <-s.on })
		}
		return processor.Continue, nil
	})
	processor.On(r, processor.Unbound, processor.Last, func(context.Context, *sessions.Entry) (processor.Verdict, error) {
		last.Do(func() { close(s.over) })
		return processor.Continue, nil
	})
}

// RFC 6121 §4.5.2: a client that closes its stream and connects again at once is
// not told that it has gone itself, and neither is anybody else.
func TestWhoComesBackAtOnceIsNotGone(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s := &slow{begun: make(chan struct{}), on: make(chan struct{}), over: make(chan struct{})}
	late := plugins.Plugin{Name: "slow", Doc: "Takes its time.", Components: []plugins.Maker{{Server: processor.Name, New: func(plugins.Env, plugins.Config) (plugins.Component, error) { return s, nil }}}}
	h := plugintest.Start(t, plugintest.Options{Plugins: append(house(), late)})
	come := func(resource string) *plugintest.Client {
		t.Helper()
		c, err := h.Login(ctx, "romeo", resource)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		hear(ctx, t, c, "<presence/>")
		return c
	}
	desk, before := come("desk"), come("phone")
	before.Close()
	<-s.begun
	phone := come("phone")
	hear(ctx, t, desk, "")
	close(s.on)
	<-s.over
	for _, c := range []*plugintest.Client{desk, phone} {
		if said := hear(ctx, t, c, ""); len(said) > 0 {
			t.Errorf("%s hears %q", c.JID, said)
		}
	}
}

// hear says something and returns the types of presence that come before that is
// dealt with, by whose they are.
func hear(ctx context.Context, t *testing.T, c *plugintest.Client, what string) map[string][]string {
	t.Helper()
	if err := c.Send(what + "<iq type='get' id='sync'><ping xmlns='urn:xmpp:ping'/></iq>"); err != nil {
		t.Fatal(err)
	}
	said := map[string][]string{}
	for {
		el, err := c.Next(ctx)
		if err != nil {
			t.Fatal(err)
		}
		switch el.Name.Local {
		case "iq":
			return said
		case "presence":
			said[el.Get("from")] = append(said[el.Get("from")], el.Get("type"))
		}
	}
}
