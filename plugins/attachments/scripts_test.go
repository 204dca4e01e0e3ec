package attachments_test

import (
	"testing"

	"parley/parser"
	"parley/plugins"
	"parley/plugins/accounts"
	"parley/plugins/archive"
	"parley/plugins/attachments"
	"parley/plugins/disco"
	"parley/plugins/message"
	"parley/plugins/ping"
	"parley/plugins/plugintest"
	"parley/plugins/presence"
	"parley/plugins/pubsub"
	"parley/plugins/roster"
	"parley/processor"
	"parley/router"
	"parley/stream"
)

func house() []plugins.Plugin {
	return []plugins.Plugin{
		router.Plugin, processor.Plugin, parser.Plugin, stream.Plugin, accounts.Plugin, archive.Plugin, disco.Plugin, attachments.Plugin,
		message.Plugin, ping.Plugin, presence.Plugin, pubsub.Plugin, roster.Plugin,
	}
}

func TestScripts(t *testing.T) {
	plugintest.Run(t, plugintest.Options{Plugins: house()}, "testdata/*.txtar")
}
