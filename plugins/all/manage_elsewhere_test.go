package all_test

import (
	"errors"
	"strings"
	"testing"

	frame "parley/plugins"
	"parley/plugins/plugintest"
)

// A front is told which nodes have the component that it has not.
func TestFrontNamesTheNodesToAsk(t *testing.T) {
	ctx, m := manage(t, 2, func(o *plugintest.Options) { o.Nodes, o.Fronts, o.Cores = 0, 1, 1 })
	if _, err := m.set(ctx, 0, "word", "second"); !errors.Is(err, frame.ErrElsewhere) || !strings.Contains(err.Error(), "one of node2:") {
		t.Errorf("a front is told: %v", err)
	}
	if _, err := m.control(0).StopPlugin(ctx, "juliet", "obstinate"); !errors.Is(err, frame.ErrElsewhere) || !strings.Contains(err.Error(), "one of node2:") {
		t.Errorf("of a plugin a front is told: %v", err)
	}
	m.followed(m.set(ctx, 1, "word", "second"))
	if _, err := m.control(1).Start(ctx, "juliet", "processor", "no-such"); !errors.Is(err, frame.ErrUnknown) {
		t.Errorf("of what nobody knows a core is told: %v", err)
	}
}
