package avatar_test

import (
	"testing"

	"parley/parser"
	"parley/plugins"
	"parley/plugins/accounts"
	"parley/plugins/archive"
	"parley/plugins/avatar"
	"parley/plugins/blocking"
	"parley/plugins/carbons"
	"parley/plugins/disco"
	"parley/plugins/message"
	"parley/plugins/ping"
	"parley/plugins/plugintest"
	"parley/plugins/presence"
	"parley/plugins/pubsub"
	"parley/plugins/roster"
	"parley/plugins/vcard"
	"parley/processor"
	"parley/router"
	"parley/stream"
)

func house() []plugins.Plugin {
	return []plugins.Plugin{
		router.Plugin, processor.Plugin, parser.Plugin, stream.Plugin, accounts.Plugin, archive.Plugin, avatar.Plugin, blocking.Plugin, carbons.Plugin,
		disco.Plugin, message.Plugin, ping.Plugin, presence.Plugin, pubsub.Plugin, roster.Plugin, vcard.Plugin,
	}
}

func TestScripts(t *testing.T) {
	plugintest.Run(t, plugintest.Options{Plugins: house()}, "testdata/*.txtar")
}
