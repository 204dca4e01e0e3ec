package archive_test

import (
	"context"
	"fmt"
	"testing"

	"parley/plugins/plugintest"
)

// TestReplacedInTheMiddle: the component is given another configuration while
// a client is being brought what it missed. The rest comes, in order, and what
// is sent after that comes live.
func TestReplacedInTheMiddle(t *testing.T) {
	for _, change := range []struct {
		name string
		do   func(context.Context, *plugintest.House) error
	}{
		{"reconfigured", func(ctx context.Context, h *plugintest.House) error {
			_, err := h.Host().Control().Reconfigure(ctx, "test", "processor", "archive", map[string]string{"max_page": "99"})
			return err
		}},
		{"stopped and started", func(ctx context.Context, h *plugintest.House) error {
			if _, err := h.Host().Control().Stop(ctx, "test", "processor", "archive"); err != nil {
				return err
			}
			_, err := h.Host().Control().Start(ctx, "test", "processor", "archive")
			return err
		}},
	} {
		t.Run(change.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), limit/8)
			defer cancel()
			h := plugintest.Start(t, plugintest.Options{Plugins: house()})
			romeo := login(ctx, t, h, "romeo", "a")
			juliet := login(ctx, t, h, "juliet", "b")
			const before = 150 // a page and a half
			for i := range before {
				if err := romeo.Send(fmt.Sprintf("<message to='juliet@localhost' type='chat' id='m%d'><body>b</body></message>", i)); err != nil {
					t.Fatal(err)
				}
			}
			sync(ctx, t, romeo)
			if err := juliet.Send("<enable xmlns='urn:xmpp:sm:3'/><presence/>"); err != nil {
				t.Fatal(err)
			}
			next, counted := 0, 0
			message := func() {
				t.Helper()
				for {
					el, err := juliet.Next(ctx)
					if err != nil {
						t.Fatalf("after %d messages: %v", next, err)
					}
					switch el.Name.Local {
					case "presence", "iq":
						counted++
						continue
					case "message":
						counted++
					default:
						continue
					}
					if want := fmt.Sprintf("m%d", next); el.Get("id") != want {
						t.Fatalf("got %s, want %s", el.Get("id"), want)
					}
					next++
					return
				}
			}
			for next < 100 { // the rest comes when these are taken
				message()
			}
			if err := change.do(ctx, h); err != nil {
				t.Fatal(err)
			}
			if err := romeo.Send(fmt.Sprintf("<message to='juliet@localhost' type='chat' id='m%d'><body>b</body></message>", before)); err != nil {
				t.Fatal(err)
			}
			if err := juliet.Send(fmt.Sprintf("<a xmlns='urn:xmpp:sm:3' h='%d'/>", counted)); err != nil {
				t.Fatal(err)
			}
			for next <= before {
				message()
			}
		})
	}
}
