package muc_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/muc"
	"parley/plugins/plugintest"
	"parley/processor"
	"parley/storage"
)

// watcher is a feature that builds on rooms: it keeps a row for each message, refuses
// some, and takes down what has happened.
type watcher struct {
	reg *processor.Registrar
	mu  sync.Mutex
	log []string

	block chan struct{} // told when "block" is said, and told to go on
}

var watched = storage.Stmt{Name: "watched", SQL: `INSERT INTO parley_meta (key, value) VALUES ($1, $2)`}

func (*watcher) Start(context.Context) error { return nil }
func (*watcher) Stop(context.Context) error  { return nil }

// Register implements processor.Component.
func (w *watcher) Register(r *processor.Registrar) {
	w.reg = r
	note := func(parts ...string) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.log = append(w.log, strings.Join(parts, " "))
	}
	processor.On(r, muc.Posting, processor.Normal, func(_ context.Context, p *muc.Post) (processor.Verdict, error) {
		switch p.Stanza.Body() {
		case "forbidden":
			return processor.Stop, stanza.NewError(stanza.NotAcceptable, "not that word")
		case "block":
			w.block <- struct{}{}
			<-w.block
		case "panic":
			panic("a hook")
		case "twice": // a row that cannot be: the commit fails
			p.Store(&watched, "watched.once", []byte("x"))
		}
		p.Store(&watched, "watched."+p.StanzaID, []byte(p.Stanza.Body()))
		return processor.Continue, nil
	})
	processor.On(r, muc.Posted, processor.Normal, func(_ context.Context, p *muc.Post) (processor.Verdict, error) {
		away := []string{}
		for _, m := range p.Members {
			if !p.Present(m.JID) {
				away = append(away, m.JID.String())
			}
		}
		note("posted", p.Stanza.Body(), p.From.String(), p.Author.String(), "away:"+strings.Join(away, ","))
		return processor.Continue, nil
	})
	processor.On(r, muc.Affiliated, processor.Normal, func(_ context.Context, a *muc.Affiliating) (processor.Verdict, error) {
		note("affiliated", a.JID.String(), a.Was.String(), a.Is.String())
		return processor.Continue, nil
	})
	processor.On(r, muc.Destroyed, processor.Normal, func(_ context.Context, d *muc.Destruction) (processor.Verdict, error) {
		note("destroyed", d.Room.String())
		return processor.Continue, nil
	})
}

// submit lets something arrive as if somebody elsewhere had sent it.
func (w *watcher) submit(ctx context.Context, raw string) {
	st, err := stanza.Parse([]byte(raw), stanza.NSClient, nil)
	if err != nil {
		panic(err)
	}
	w.reg.Submit(ctx, st)
}

func watcherPlugin(w *watcher) plugins.Plugin {
	return plugins.Plugin{Name: "watcher", Requires: []string{muc.Name}, Components: []plugins.Maker{{
		Server: processor.Name, New: func(plugins.Env, plugins.Config) (plugins.Component, error) { return w, nil },
	}}}
}

func TestHooks(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	w := &watcher{}
	h := plugintest.Start(t, plugintest.Options{Plugins: append(house(), watcherPlugin(w))})
	const room = "garden@conference.localhost"
	ann := opens(ctx, t, h, 0, "ann", room)
	ann.ask(ctx, t, "a1", "<iq type='set' id='a1' to='%s'><query xmlns='http://jabber.org/protocol/muc#admin'><item affiliation='member' jid='cat@localhost'/></query></iq>", room)
	for _, m := range []struct{ id, body, want string }{
		{"m1", "one", ""}, {"m2", "forbidden", "not-acceptable"}, {"m3", "panic", "internal-server-error"},
		{"m4", "twice", ""}, {"m5", "twice", "internal-server-error"}, {"m6", "two", ""},
	} {
		ann.say(t, "<message to='%s' type='groupchat' id='%s'><body>%s</body></message>", room, m.id, m.body)
		el := ann.await(ctx, t, "an end of "+m.id, func(el *stanza.Element) bool { return el.Name.Local == "message" && el.Get("id") == m.id })
		got := ""
		if e := stanza.ParseError(el.Child(stanza.NSClient, "error")); e != nil {
			got = string(e.Condition)
		}
		if got != m.want {
			t.Errorf("%s: %q, want %q", m.body, got, m.want)
		}
	}
	ann.ask(ctx, t, "x", "<iq type='set' id='x' to='%s'><query xmlns='http://jabber.org/protocol/muc#owner'><destroy/></query></iq>", room)
	w.mu.Lock()
	got := strings.Join(w.log, "\n")
	w.mu.Unlock()
	want := `affiliated cat@localhost none member
posted one garden@conference.localhost/ann ann@localhost away:cat@localhost
posted twice garden@conference.localhost/ann ann@localhost away:cat@localhost
posted two garden@conference.localhost/ann ann@localhost away:cat@localhost
destroyed garden@conference.localhost`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	var n int
	if err := h.DB().QueryRow(ctx, `SELECT count(*) FROM parley_meta WHERE key LIKE 'watched.%'`).Scan(&n); err != nil || n != 4 {
		t.Errorf("%d rows, %v", n, errors.Join(err))
	}
}
