package all_test

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	frame "parley/plugins"
	"parley/plugins/all"
	"parley/plugins/plugintest"
	"parley/processor"
	"parley/stream"
)

// twofold is a plugin with the same component in two Servers.
type twofold struct {
	server string
	cfg    twofoldConfig
}

type twofoldConfig struct {
	Word string `yaml:"word" doc:"A word of the test's."`
}

func (*twofold) Start(context.Context) error { return nil }
func (*twofold) Stop(context.Context) error  { return nil }

type twofoldProcessor struct{ *twofold }

func (t twofoldProcessor) Register(r *processor.Registrar) { r.Feature("urn:test:" + t.cfg.Word) }

type twofoldStreamer struct{ *twofold }

func (t twofoldStreamer) Register(*stream.Registrar) {}

func twofoldPlugin(made *sync.Map) frame.Plugin {
	mk := func(server string, wrap func(*twofold) frame.Component) frame.Maker {
		return frame.Maker{Server: server, Defaults: &twofoldConfig{Word: "default"}, New: func(_ frame.Env, c frame.Config) (frame.Component, error) {
			t := &twofold{server: server, cfg: twofoldConfig{Word: "default"}}
			if err := c.Decode(&t.cfg); err != nil {
				return nil, err
			}
			made.Store(server, t.cfg.Word)
			return wrap(t), nil
		}}
	}
	return frame.Plugin{Name: "twofold", Doc: "The same component in two Servers.", Components: []frame.Maker{
		mk("processor", func(t *twofold) frame.Component { return twofoldProcessor{t} }),
		mk("streamer", func(t *twofold) frame.Component { return twofoldStreamer{t} }),
	}}
}

// pair is two clients; one sends numbered messages until it is told to stop,
// the other counts them.
type pair struct {
	from, to *plugintest.Client
	window   chan struct{} // one place per message on its way: the test is about change, not about load
	sent     atomic.Int64
	received atomic.Int64
}

// send ends with one message after stop, so that the receiver wakes up.
func (p *pair) send(stop <-chan struct{}) error {
	for n, last := int64(1), false; !last; n++ {
		select {
		case <-stop:
			last = true
		case p.window <- struct{}{}:
		}
		if err := p.from.Send(fmt.Sprintf("<message to='%s' type='chat' id='%d'><body>%d</body></message>", p.to.JID, n, n)); err != nil {
			return fmt.Errorf("%s was disconnected: %w", p.from.JID, err)
		}
		p.sent.Store(n)
	}
	return nil
}

// receive checks that every message comes, once and in order, until last.
func (p *pair) receive(ctx context.Context, last func() int64) error {
	for want := int64(1); want <= last(); {
		el, err := p.to.Next(ctx)
		if err != nil {
			return fmt.Errorf("%s was disconnected after %d messages: %w", p.to.JID, want-1, err)
		}
		if el.Name.Local != "message" || el.Get("type") == "error" {
			continue
		}
		if got, _ := strconv.ParseInt(el.Get("id"), 10, 64); got != want {
			return fmt.Errorf("message %d where %d was due", got, want)
		}
		p.received.Store(want)
		want++
		select {
		case <-p.window:
		default: // the last one took no place
		}
	}
	return nil
}

// Components, plugins and Servers come and go 500 times under traffic; no
// connection drops and no stanza is lost.
func TestRunTimeChangesUnderTraffic(t *testing.T) {
	const changes, pairs = 500, 4
	var made sync.Map
	h := plugintest.Start(t, plugintest.Options{
		Plugins: append(all.Plugins(), twofoldPlugin(&made)),
		Config:  "servers: {streamer: {rate: {stanzas: 0, bytes: 0}, components: {twofold: {word: one}}}, processor: {components: {twofold: {word: two}}}}",
	})
	for server, want := range map[string]string{"streamer": "one", "processor": "two"} {
		if got, _ := made.Load(server); got != want {
			t.Errorf("twofold in %s is configured with %v, want %s", server, got, want)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	defer cancel()

	stop := make(chan struct{})
	var stopped atomic.Bool
	var work sync.WaitGroup
	for i := range pairs {
		p := &pair{window: make(chan struct{}, 50)}
		var err error
		if p.from, err = h.Login(ctx, fmt.Sprintf("from%d", i), "a"); err != nil {
			t.Fatal(err)
		}
		defer p.from.Close()
		if p.to, err = h.Login(ctx, fmt.Sprintf("to%d", i), "b"); err != nil {
			t.Fatal(err)
		}
		defer p.to.Close()
		var sending sync.WaitGroup
		sending.Go(func() {
			if err := p.send(stop); err != nil {
				t.Error(err)
			}
		})
		work.Go(func() {
			err := p.receive(ctx, func() int64 {
				if stopped.Load() {
					sending.Wait()
					return p.sent.Load()
				}
				return 1 << 62
			})
			if err != nil {
				t.Error(err)
			}
			t.Logf("%d messages", p.received.Load())
		})
	}
	c := h.Host().Control()
	steps := runtimeSteps(ctx, c)
	for i := range changes {
		s := steps[i%len(steps)]
		if err := s.do(i); err != nil {
			t.Fatalf("change %d, %s: %v", i, s.name, err)
		}
	}
	stopped.Store(true)
	close(stop)
	work.Wait()
}

type runtimeStep struct {
	name string
	do   func(i int) error
}

// done is whether a change was made.
func done(_ frame.Applied, err error) error { return err }

func runtimeSteps(ctx context.Context, c frame.Control) []runtimeStep {
	steps := []runtimeStep{
		{"component stop", func(int) error { return done(c.Stop(ctx, "test", "processor", "ping")) }},
		{"component start", func(int) error { return done(c.Start(ctx, "test", "processor", "ping")) }},
		{"component reconfigure", func(i int) error {
			return done(c.Reconfigure(ctx, "test", "processor", "twofold", map[string]string{"word": "w" + strconv.Itoa(i)}))
		}},
		{"component uninstall", func(int) error { return done(c.Uninstall(ctx, "test", "processor", "version")) }},
		{"component install", func(int) error { return done(c.Install(ctx, "test", "processor", "version")) }},
		{"component start", func(int) error { return done(c.Start(ctx, "test", "processor", "version")) }},
		{"plugin stop", func(int) error { return done(c.StopPlugin(ctx, "test", "twofold")) }},
		{"plugin start", func(int) error { return done(c.StartPlugin(ctx, "test", "twofold")) }},
	}
	for _, s := range []string{"parser", "processor", "router"} {
		steps = append(steps,
			runtimeStep{"server stop " + s, func(int) error { return c.StopServer(ctx, s) }},
			runtimeStep{"server start " + s, func(int) error { return c.StartServer(ctx, s) }})
	}
	return steps
}
