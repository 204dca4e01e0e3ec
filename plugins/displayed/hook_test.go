package displayed_test

import (
	"context"
	"slices"
	"sync"
	"testing"

	"parley/plugins"
	"parley/plugins/displayed"
	"parley/plugins/plugintest"
	"parley/plugins/plugintest/script"
	"parley/processor"
)

// counter hangs on the hook, as who counts what is unread does.
type counter struct {
	mu  sync.Mutex
	log []string
}

func (*counter) Start(context.Context) error { return nil }
func (*counter) Stop(context.Context) error  { return nil }

func (c *counter) Register(r *processor.Registrar) {
	processor.On(r, displayed.Displayed, processor.Normal, func(_ context.Context, m *displayed.Mark) (processor.Verdict, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.log = append(c.log, m.Conversation.Resource()+" "+m.ID+" "+m.By.Local())
		return processor.Continue, nil
	})
}

// Features hear of what was shown, whether the client or the server has published
// it; of what is not readable they do not.
func TestDisplayed(t *testing.T) {
	c := &counter{}
	house := plugintest.Start(t, plugintest.Options{Plugins: append(house(), plugins.Plugin{
		Name: "counter", Requires: []string{displayed.Name},
		Components: []plugins.Maker{{Server: processor.Name, New: func(plugins.Env, plugins.Config) (plugins.Component, error) { return c, nil }}},
	})})
	script.Test(t, &script.Runner{Target: house}, "testdata/hooks/*.txtar")
	c.mu.Lock()
	defer c.mu.Unlock()
	if want := []string{"nick a1 room", "nick b2 room"}; !slices.Equal(c.log, want) {
		t.Errorf("%q, want %q", c.log, want)
	}
}
