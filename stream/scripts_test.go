package stream_test

import (
	"testing"

	"parley/parser"
	"parley/plugins"
	"parley/plugins/accounts"
	"parley/plugins/ping"
	"parley/plugins/plugintest"
	"parley/plugins/session"
	"parley/processor"
	"parley/router"
	"parley/stream"
)

// parts is a house that has accounts and little else.
func parts() []plugins.Plugin {
	return []plugins.Plugin{router.Plugin, processor.Plugin, parser.Plugin, stream.Plugin, accounts.Plugin, ping.Plugin, session.Plugin}
}

func TestScripts(t *testing.T) {
	plugintest.Run(t, plugintest.Options{Plugins: parts()}, "testdata/*.txtar")
}
