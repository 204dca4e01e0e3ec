package push_test

import (
	"testing"

	"parley/parser"
	"parley/plugins"
	"parley/plugins/accounts"
	"parley/plugins/archive"
	"parley/plugins/blocking"
	"parley/plugins/bookmarks"
	"parley/plugins/carbons"
	"parley/plugins/disco"
	"parley/plugins/displayed"
	"parley/plugins/inbox"
	"parley/plugins/message"
	"parley/plugins/muc"
	"parley/plugins/ping"
	"parley/plugins/plugintest"
	"parley/plugins/plugintest/script"
	"parley/plugins/presence"
	"parley/plugins/private"
	"parley/plugins/pubsub"
	"parley/plugins/push"
	"parley/plugins/roster"
	"parley/processor"
	"parley/router"
	"parley/storage"
	"parley/storage/storagetest"
	"parley/stream"
)

func house() []plugins.Plugin {
	return []plugins.Plugin{
		router.Plugin, processor.Plugin, parser.Plugin, stream.Plugin, accounts.Plugin, ping.Plugin, disco.Plugin,
		roster.Plugin, presence.Plugin, message.Plugin, archive.Plugin, carbons.Plugin, blocking.Plugin, muc.Plugin,
		private.Plugin, pubsub.Plugin, displayed.Plugin, bookmarks.Plugin, inbox.Plugin, push.Plugin,
	}
}

func TestScripts(t *testing.T) {
	storagetest.EachConfig(t, func(t *testing.T, c storage.Config) {
		plugintest.Run(t, plugintest.Options{Plugins: house(), Storage: func() storage.Config { return c }}, "testdata/*.txtar")
	})
}

// A push service may be at another node than whom the messages are for.
func TestScriptsOnNodes(t *testing.T) {
	c := storagetest.Postgres(t)
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Nodes: 3, Storage: func() storage.Config { return c }})
	script.Test(t, &script.Runner{Target: plugintest.Spread{House: h}}, "testdata/*.txtar")
}
