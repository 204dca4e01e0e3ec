package resumption_test

import (
	"context"
	"fmt"
	"testing"

	"parley/plugins"
	"parley/plugins/plugintest"
	"parley/processor"
	"parley/router/sessions"
	"parley/storage"
	"parley/storage/storagetest"
)

// pause stops the binding of sessions of before as soon as others can see them.
type pause struct{ bound, goOn chan struct{} }

func (*pause) Start(context.Context) error { return nil }

func (*pause) Stop(context.Context) error { return nil }

func (p *pause) Register(r *processor.Registrar) {
	processor.On(r, processor.Bound, processor.First, func(ctx context.Context, e *sessions.Entry) (processor.Verdict, error) {
		if e.Paused {
			p.bound <- struct{}{}
			<-p.goOn
		}
		return processor.Continue, nil
	})
}

// TestRule58NothingOvertakesWhatWaitsForASessionThatMoves: juliet's client comes
// back at romeo's node. What he writes there before she has gone on comes behind
// what waits for her from before (D3).
func TestRule58NothingOvertakesWhatWaitsForASessionThatMoves(t *testing.T) {
	c := storagetest.Postgres(t)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	stop := &pause{make(chan struct{}), make(chan struct{})}
	h := plugintest.Start(t, plugintest.Options{Nodes: 2, Storage: func() storage.Config { return c }, Plugins: append(house(), plugins.Plugin{
		Name: "a-pause",
		Components: []plugins.Maker{{Server: processor.Name, New: func(plugins.Env, plugins.Config) (plugins.Component, error) {
			return stop, nil
		}}},
	})})
	juliet, id := here(ctx, t, h, 0, "juliet")
	romeo, _ := here(ctx, t, h, 1, "romeo")
	say := func(text string) { // and it is on its way
		romeo.say(fmt.Sprintf("<message to='juliet@localhost' type='chat' id='%[1]s'><body>%[1]s</body></message><iq type='get' id='p'><ping xmlns='urn:xmpp:ping'/></iq>", text), "iq")
	}
	juliet.Close()
	say("old")
	resumed := make(chan *client)
	go func() {
		conn, err := plugintest.Connect(ctx, h.DoorOf(1, "c2s"), h.Domain(), "juliet", password)
		if err == nil {
			err = conn.Send(fmt.Sprintf("<resume xmlns='urn:xmpp:sm:3' previd='%s' h='%d'/>", id, juliet.in))
		}
		if err != nil {
			t.Error(err)
		}
		resumed <- &client{Client: conn, t: t, ctx: ctx}
	}()
	select {
	case <-stop.bound:
	case <-ctx.Done():
		t.Fatal("the session does not come")
	}
	say("new")
	close(stop.goOn)
	juliet = <-resumed
	for _, want := range []string{"old", "new"} {
		if id := juliet.await("message").Get("id"); id != want {
			t.Fatalf("the message %q, want %q", id, want)
		}
	}
}
