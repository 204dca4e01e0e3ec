package presence_test

import (
	"context"
	"testing"

	"parley/parser"
	"parley/plugins"
	"parley/plugins/accounts"
	"parley/plugins/ping"
	"parley/plugins/plugintest"
	"parley/plugins/presence"
	"parley/plugins/roster"
	"parley/processor"
	"parley/router"
	"parley/router/channel"
	"parley/stream"
)

func house() []plugins.Plugin {
	return []plugins.Plugin{router.Plugin, processor.Plugin, parser.Plugin, stream.Plugin, accounts.Plugin, ping.Plugin, roster.Plugin, presence.Plugin}
}

func TestScripts(t *testing.T) {
	plugintest.Run(t, plugintest.Options{Plugins: house()}, "testdata/*.txtar")
}

// The same when every envelope crosses a network between the stages.
func TestScriptsAcrossTheSeam(t *testing.T) {
	plugintest.Run(t, plugintest.Options{Plugins: house(), Seam: true}, "testdata/*.txtar")
}

// nowhere is where pushes of this test go.
type nowhere struct{}

func (nowhere) Route(context.Context, ...*channel.Envelope) {}
