package abuse

import (
	"context"
	"strings"
	"testing"

	"parley/parser/stanza"
	"parley/plugins"
	"parley/processor"
	"parley/router/sessions"
	"parley/stream"
)

const nsPoison = "urn:test:poison"

// poison is a feature that panics wherever a feature is called.
type poison struct{}

func (poison) Start(context.Context) error { return nil }
func (poison) Stop(context.Context) error  { return nil }

// poisonProcessor panics in handlers and hooks.
type poisonProcessor struct{ poison }

func (poisonProcessor) Register(r *processor.Registrar) {
	r.IQ(nsPoison, "iq", processor.Host|processor.Self|processor.Account, func(context.Context, *processor.IQ) (*stanza.Element, error) { panic("poison") })
	at := func(local string) func(context.Context, *processor.Flow) (processor.Verdict, error) {
		return func(_ context.Context, f *processor.Flow) (processor.Verdict, error) {
			if f.Has(nsPoison, local) {
				var none *stanza.Element
				_ = none.Name.Local // as real ones do
			}
			return processor.Continue, nil
		}
	}
	processor.On(r, processor.Outgoing, processor.First, at("outgoing"))
	processor.On(r, processor.Incoming, processor.Late, at("incoming"))
	processor.On(r, processor.ToServer, processor.Normal, at("to-server"))
	session := func(resource string) func(context.Context, *sessions.Entry) (processor.Verdict, error) {
		return func(_ context.Context, e *sessions.Entry) (processor.Verdict, error) {
			if e.JID.Resource() == resource {
				panic("poison")
			}
			return processor.Continue, nil
		}
	}
	processor.On(r, processor.Bound, processor.Normal, session("poison-bound"))
	processor.On(r, processor.Unbound, processor.First, session("poison-unbound"))
}

// poisonStreamer panics on the reader's goroutine.
type poisonStreamer struct{ poison }

func (poisonStreamer) Register(r *stream.Registrar) {
	r.StreamFeature(stream.Feature{In: stream.Fresh | stream.Secured | stream.Authenticated | stream.Established, Order: 1000, Elements: map[stanza.Name]stream.ElementHandler{
		{Space: nsPoison, Local: "element"}: func(context.Context, *stream.Conn, *stanza.Element) error { panic("poison") },
	}})
	r.PreAuthIQ(stanza.Name{Space: nsPoison, Local: "iq"}, func(context.Context, *stream.Conn, *stanza.Stanza) (*stanza.Element, error) { panic("poison") })
}

var poisonPlugin = plugins.Plugin{Name: "poison", Doc: "Panics.", Components: []plugins.Maker{
	{Server: processor.Name, New: func(plugins.Env, plugins.Config) (plugins.Component, error) { return poisonProcessor{}, nil }},
	{Server: stream.Name, New: func(plugins.Env, plugins.Config) (plugins.Component, error) { return poisonStreamer{}, nil }},
}}

// A stanza that makes a handler panic costs its sender an error, and nobody
// anything else; what stands before and behind it is dealt with.
func TestReliability38PoisonStanza(t *testing.T) {
	w := start(t, configured([]string{unlimited}, nil), poisonPlugin)
	mallory := w.login("mallory", "m")
	poisoned := []string{
		"<iq type='get' id='p'><iq xmlns='" + nsPoison + "'/></iq>",
		"<iq type='set' id='p' to='localhost'><iq xmlns='" + nsPoison + "'/></iq>",
		"<iq type='get' id='p' to='bob@localhost'><iq xmlns='" + nsPoison + "'/></iq>",
		"<message id='p' to='$BOB'><body>b</body><outgoing xmlns='" + nsPoison + "'/></message>",
		"<message id='p' to='bob@localhost'><body>b</body><incoming xmlns='" + nsPoison + "'/></message>",
		"<message id='p' to='localhost'><to-server xmlns='" + nsPoison + "'/></message>",
		"<presence id='p'><outgoing xmlns='" + nsPoison + "'/></presence>",
	}
	ping := "<iq type='get' id='$I'><ping xmlns='urn:xmpp:ping'/></iq>"
	w.calm(8, func() {
		for _, p := range poisoned {
			p = strings.ReplaceAll(p, "$BOB", w.bob.JID.String())
			w.say(mallory, strings.ReplaceAll(ping, "$I", "before")+p+strings.ReplaceAll(ping, "$I", "behind")) // one batch
			var got []string
			w.next(mallory, func(el *stanza.Element) bool {
				id := el.Get("id")
				if e := el.Child(stanza.NSClient, "error"); e != nil && e.Child(stanza.NSStanzas, "internal-server-error") != nil {
					id += " error"
				}
				got = append(got, id)
				return id == "behind"
			})
			if s := strings.Join(got, ","); s != "before,p error,behind" {
				t.Errorf("%s is answered with %s", p, s)
			}
		}
	})
	if n := w.metric("parley_handler_panics_total"); int(n) != len(poisoned) {
		t.Errorf("%v panics are counted, there were %d", n, len(poisoned))
	}
	if !strings.Contains(w.log.seen(), "stack=") {
		t.Error("the log has no stack")
	}
}

// A panic on the way into or out of a session, or in an element that is no
// stanza, ends that stream at most.
func TestReliability38PoisonStream(t *testing.T) {
	w := start(t, configured([]string{unlimited}, nil), poisonPlugin)
	w.account("mallory", secret)
	element := "<element xmlns='" + nsPoison + "'/>"
	w.calm(8, func() {
		fresh := w.dial()
		w.must(fresh.exchange(header, "</stream:features>"))
		w.must(fresh.say(element))
		w.refused(fresh, "internal-server-error")

		early := w.dial()
		w.must(early.exchange(header, "</stream:features>"))
		w.must(early.say("<iq type='get' id='1'><iq xmlns='" + nsPoison + "'/></iq>"))
		w.refused(early, "internal-server-error")

		session := w.bound("mallory", "m")
		w.must(session.say(element))
		w.refused(session, "internal-server-error")

		bound := w.bound("mallory", "poison-bound")
		w.must(bound.exchange("<iq type='get' id='1'><ping xmlns='urn:xmpp:ping'/></iq>", " id='1'"))
		gone := w.bound("mallory", "poison-unbound")
		gone.hangUp()
		if _, err := gone.rest(); err != nil {
			t.Error(err)
		}
	})
}
