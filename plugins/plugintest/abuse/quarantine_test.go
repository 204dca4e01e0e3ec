package abuse

import (
	"bytes"
	"context"
	"crypto/rand"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/all"
	"parley/plugins/plugintest"
	"parley/processor"
	"parley/router"
	"parley/router/channel"
	"parley/storage/atrest"
)

// late panics where no handler of a stanza runs: when its rows are settled,
// when it is copied, when it leaves for another server.
type late struct {
	poison
	reg *processor.Registrar
}

func (l *late) Register(r *processor.Registrar) {
	l.reg = r
	processor.On(r, processor.Outgoing, processor.Late, func(_ context.Context, f *processor.Flow) (processor.Verdict, error) {
		if f.Has(nsPoison, "settled") {
			f.Settled(func(bool) { panic("poison") })
		}
		if f.Has(nsPoison, "again") {
			panic("poison of " + f.ID)
		}
		return processor.Continue, nil
	})
}

type lateRouter struct{ poison }

func (lateRouter) Register(r *router.Registrar) {
	r.Copies(func(_ context.Context, c *router.Copied) []*channel.Envelope {
		if c.Has(nsPoison, "copied") {
			panic("poison")
		}
		return nil
	})
	r.Remote(func(_ context.Context, e *channel.Envelope) (bool, *stanza.Error) {
		if e.Stanza.Has(nsPoison, "gateway") {
			panic("poison")
		}
		return false, nil
	})
}

func (l *late) plugin() plugins.Plugin {
	return plugins.Plugin{Name: "late", Doc: "Panics.", Components: []plugins.Maker{
		{Server: processor.Name, New: func(plugins.Env, plugins.Config) (plugins.Component, error) { return l, nil }},
		{Server: router.Name, New: func(plugins.Env, plugins.Config) (plugins.Component, error) { return lateRouter{}, nil }},
	}}
}

// A panic behind the handlers, in a batch with others' stanzas, costs those
// nothing; what can be delivered is.
func TestReliability38PoisonBehindTheHandlers(t *testing.T) {
	w := start(t, configured([]string{unlimited}, nil), (&late{}).plugin())
	mallory := w.login("mallory", "m")
	other := w.login("bob", "other") // so that there is somebody to copy to
	w.say(other, "<presence/>")
	w.until(other)
	to := w.bob.JID.String()
	body := func(id, to, more string) string {
		return "<message type='chat' id='" + id + "' to='" + to + "'><body>b</body>" + more + "</message>"
	}
	for _, c := range []struct {
		local, to string
		delivered bool
	}{
		{"settled", to, true},
		{"copied", to, true},
		{"gateway", "someone@elsewhere.example", false},
	} {
		w.say(mallory, body("before-"+c.local, to, "")+body("p-"+c.local, c.to, "<"+c.local+" xmlns='"+nsPoison+"'/>")+body("behind-"+c.local, to, ""))
		var got []string
		w.next(w.bob, func(el *stanza.Element) bool {
			if el.Name.Local == "message" {
				got = append(got, el.Get("id"))
			}
			return el.Get("id") == "behind-"+c.local
		})
		want := "before-" + c.local + " p-" + c.local + " behind-" + c.local
		if !c.delivered {
			want = "before-" + c.local + " behind-" + c.local
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s: bob gets %q", c.local, s)
		}
		var failed bool
		for _, el := range w.until(mallory) {
			failed = failed || el.Get("id") == "p-"+c.local && el.Get("type") == "error"
		}
		if failed == c.delivered {
			t.Errorf("%s: the sender is told of an error: %v", c.local, failed)
		}
	}
	if !strings.Contains(w.log.seen(), "stack=") {
		t.Error("the log has no stack")
	}
}

// quarantined is the table as it stands.
type quarantined struct {
	id, pending, key        int64
	sender, account, reason string
	stanza                  []byte
}

func (w *world) quarantine() (q quarantined, n int) {
	w.Helper()
	if err := w.DB().QueryRow(w.ctx, `SELECT COUNT(*) FROM quarantine`).Scan(&n); err != nil {
		w.Fatal(err)
	}
	if n > 0 {
		err := w.DB().QueryRow(w.ctx, `SELECT id, pending, key_id, sender, account, reason, stanza FROM quarantine ORDER BY id DESC LIMIT 1`).
			Scan(&q.id, &q.pending, &q.key, &q.sender, &q.account, &q.reason, &q.stanza)
		if err != nil {
			w.Fatal(err)
		}
	}
	return q, n
}

// A stanza that is sent again and again is set aside the third time, sealed,
// and no handler sees it any more.
func TestReliability38QuarantineOfWhatIsSentAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys")
	key, err := atrest.NewKey(file, time.Now(), -1, -1)
	if err != nil {
		t.Fatal(err)
	}
	w := start(t, configured([]string{unlimited}, nil)+"storage: {encryption: {keys_file: "+file+"}}\n", (&late{}).plugin())
	mallory := w.login("mallory", "m")
	message := "<message id='p' to='" + w.bob.JID.String() + "'><body>unspeakable</body><again xmlns='" + nsPoison + "'/></message>"
	for i := range 5 {
		w.say(mallory, message)
		w.next(mallory, func(el *stanza.Element) bool {
			e := el.Child(stanza.NSClient, "error")
			return e != nil && e.Child(stanza.NSStanzas, "internal-server-error") != nil
		})
		_, n := w.quarantine()
		if want := i >= 2; (n == 1) != want {
			t.Fatalf("after %d times %d stanzas are in quarantine", i+1, n)
		}
	}
	if n := w.metric("parley_handler_panics_total"); n != 3 {
		t.Errorf("handlers panicked %v times", n)
	}
	q, _ := w.quarantine()
	if q.sender != "mallory@localhost" || !strings.Contains(q.reason, "poison of p") || !strings.Contains(q.reason, "quarantine_test") && !strings.Contains(q.reason, "late") {
		t.Errorf("%+v", q)
	}
	if q.key != key || bytes.Contains(q.stanza, []byte("unspeakable")) {
		t.Error("what was written is not sealed")
	}
	w.say(mallory, strings.ReplaceAll(message, "again", "fine")) // the lane goes on
	w.next(w.bob, withID("p"))
}

// A pending message that panics whenever it is replayed leaves the queue for
// the quarantine; the others of its owner come.
func TestReliability38QuarantineOfAPendingRow(t *testing.T) {
	l := &late{}
	w := startWith(t, plugintest.Options{Config: configured([]string{unlimited}, nil), Plugins: append(all.Plugins(), l.plugin())})
	w.account("romeo", secret)
	for _, id := range []string{"first", "poison", "last"} {
		w.say(w.alice, "<message type='chat' id='%s' to='romeo@localhost'><body>%s</body></message>", id, id+rand.Text())
	}
	w.until(w.alice)
	var row int64
	if err := w.DB().QueryRow(w.ctx, `SELECT id FROM archive_pending ORDER BY id LIMIT 1 OFFSET 1`).Scan(&row); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		ran := false
		x := &processor.Poison{Raw: []byte("<message/>"), Account: jid.MustParse("romeo@localhost"), Pending: row}
		if l.reg.Guard(w.ctx, x, func() { ran = true; panic("poison") }) {
			t.Fatal("a panic counts as success")
		}
		if _, n := w.quarantine(); (n == 1) != (i >= 2) || ran != (i < 3) {
			t.Fatalf("try %d: ran %v, %d in quarantine", i+1, ran, n)
		}
	}
	if q, _ := w.quarantine(); q.account != "romeo@localhost" || q.pending != row || string(q.stanza) != "<message/>" {
		t.Errorf("%+v", q)
	}
	romeo := w.login("romeo", "r")
	w.say(romeo, "<presence/>")
	var got []string
	w.next(romeo, func(el *stanza.Element) bool {
		if el.Name.Local == "message" {
			got = append(got, el.Get("id"))
		}
		return el.Get("id") == "last"
	})
	if s := strings.Join(got, " "); s != "first last" {
		t.Errorf("romeo gets %q", s)
	}
}
