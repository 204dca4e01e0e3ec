package inbox_test

import (
	"context"
	gosync "sync"
	"testing"

	"parley/parser/jid"
	"parley/plugins"
	"parley/plugins/inbox"
	"parley/plugins/plugintest"
	"parley/processor"
	"parley/storage"
	"parley/storage/storagetest"
)

// told notes what waits.
type told struct {
	mu  gosync.Mutex
	all []inbox.Wait
}

func (l *told) plugin() plugins.Plugin {
	return plugins.Plugin{Name: "waker", Requires: []string{inbox.Name}, Components: []plugins.Maker{{
		Server: processor.Name, New: func(plugins.Env, plugins.Config) (plugins.Component, error) { return waker{l}, nil },
	}}}
}

type waker struct{ *told }

func (waker) Start(context.Context) error { return nil }
func (waker) Stop(context.Context) error  { return nil }
func (w waker) Register(r *processor.Registrar) {
	processor.On(r, inbox.Waiting, processor.Normal, func(_ context.Context, e *inbox.Wait) (processor.Verdict, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.all = append(w.all, *e)
		return processor.Continue, nil
	})
}

// take returns what was told since, which is done when the sender has its answer.
func (l *told) take() []inbox.Wait {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.all
	l.all = nil
	return all
}

const mention = "<reference xmlns='urn:xmpp:reference:0' type='mention' uri='xmpp:juliet@localhost'/>"

// Who wakes devices hears of words and calls that no device takes, and what their
// owner has set.
func TestWaiting(t *testing.T) {
	storagetest.EachConfig(t, func(t *testing.T, c storage.Config) {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		listener := &told{}
		h := plugintest.Start(t, plugintest.Options{Plugins: append(house(), listener.plugin()), Storage: func() storage.Config { return c }})
		b, me, him := contract(t, h), jid.MustParse("juliet@localhost"), jid.MustParse("romeo@localhost")
		romeo := login(ctx, t, h, "romeo", "a")
		if err := h.Account(ctx, "juliet", plugintest.Password); err != nil {
			t.Fatal(err)
		}
		say := func(xml string) []inbox.Wait {
			t.Helper()
			send(t, romeo, xml)
			sync(ctx, t, romeo)
			return listener.take()
		}
		const words = "<message to='juliet@localhost' type='chat'><body>b</body></message>"
		got := say(words)
		if len(got) != 1 || got[0].Account != me || got[0].Conversation != him || got[0].From != romeo.JID || got[0].Mentioned || got[0].Muted("", "") {
			t.Fatalf("words: %+v", got)
		}
		for name, xml := range map[string]string{
			"a call": "<message to='juliet@localhost' type='chat'><propose xmlns='urn:xmpp:jingle-message:0' id='x'/></message>",
			"a file": "<message to='juliet@localhost'><x xmlns='jabber:x:oob'><url>https://a.example/b</url></x></message>",
		} {
			if got := say(xml); len(got) != 1 {
				t.Errorf("%s: %+v", name, got)
			}
		}
		for name, xml := range map[string]string{
			"a receipt":    "<message to='juliet@localhost' type='chat'><received xmlns='urn:xmpp:receipts' id='x'/></message>",
			"typing":       "<message to='juliet@localhost' type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>",
			"a correction": "<message to='juliet@localhost' type='chat'><body>c</body><replace xmlns='urn:xmpp:message-correct:0' id='x'/></message>",
			"to nobody":    "<message to='nobody@localhost' type='chat'><body>b</body></message>",
			"to oneself":   "<message to='romeo@localhost' type='chat'><body>b</body></message>",
		} {
			if got := say(xml); len(got) != 0 {
				t.Errorf("%s: %+v", name, got)
			}
		}

		// XEP-0492 §3
		set := func(n inbox.Notify) {
			t.Helper()
			if err := b.SetNotify(ctx, me, him, n); err != nil {
				t.Fatal(err)
			}
		}
		set(inbox.Notify{{When: inbox.Never}, {When: inbox.Always, Category: "client", Type: "phone"}})
		if got := say(words); len(got) != 1 || !got[0].Muted("", "") || !got[0].Muted("client", "pc") || got[0].Muted("client", "phone") {
			t.Errorf("never: %+v", got)
		}
		set(inbox.Notify{{When: inbox.OnMention}})
		if got := say(words); len(got) != 1 || !got[0].Muted("", "") {
			t.Errorf("on-mention: %+v", got)
		}
		if got := say("<message to='juliet@localhost' type='chat'><body>b</body>" + mention + "</message>"); len(got) != 1 || !got[0].Mentioned || got[0].Muted("", "") {
			t.Errorf("on-mention, mentioned: %+v", got)
		}
		set(nil)
		if got := say(words); len(got) != 1 || got[0].Muted("", "") {
			t.Errorf("taken back: %+v", got)
		}

		// A device that is there takes it; one with a negative priority does not (rule 38).
		juliet := login(ctx, t, h, "juliet", "b")
		send(t, juliet, "<presence><priority>-1</priority></presence>")
		sync(ctx, t, juliet)
		if got := say(words); len(got) != 1 {
			t.Errorf("negative priority: %+v", got)
		}
		send(t, juliet, "<presence/>")
		sync(ctx, t, juliet)
		if got := say(words); len(got) != 0 {
			t.Errorf("online: %+v", got)
		}
		// So does an inactive one, which is sent at once what people read.
		send(t, juliet, "<inactive xmlns='urn:xmpp:csi:0'/>")
		sync(ctx, t, juliet)
		if got := say(words); len(got) != 0 {
			t.Errorf("inactive: %+v", got)
		}
	})
}

// A stream that is broken takes nothing, though its session may go on (XEP-0198).
func TestWaitingForABrokenStream(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	listener := &told{}
	h := plugintest.Start(t, plugintest.Options{Plugins: append(house(), listener.plugin())})
	romeo, juliet := login(ctx, t, h, "romeo", "a"), login(ctx, t, h, "juliet", "b")
	send(t, juliet, "<enable xmlns='urn:xmpp:sm:3' resume='true'/><presence/>")
	sync(ctx, t, juliet)
	juliet.Close()
	for { // until the house has seen it
		send(t, romeo, "<message to='juliet@localhost' type='chat'><body>b</body></message>")
		sync(ctx, t, romeo)
		if got := listener.take(); len(got) == 1 {
			return
		}
	}
}
