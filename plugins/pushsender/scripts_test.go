package pushsender_test

import (
	"testing"

	"parley/plugins"
	"parley/plugins/archive"
	"parley/plugins/blocking"
	"parley/plugins/bookmarks"
	"parley/plugins/carbons"
	"parley/plugins/commands"
	"parley/plugins/displayed"
	"parley/plugins/inbox"
	"parley/plugins/muc"
	"parley/plugins/plugintest"
	"parley/plugins/plugintest/script"
	"parley/plugins/private"
	"parley/plugins/pubsub"
	"parley/plugins/push"
	"parley/plugins/pushsender"
	"parley/storage"
	"parley/storage/storagetest"
)

func house() []plugins.Plugin {
	return plugintest.Basics(archive.Plugin, carbons.Plugin, blocking.Plugin, commands.Plugin, muc.Plugin, private.Plugin, pubsub.Plugin,
		displayed.Plugin, bookmarks.Plugin, inbox.Plugin, push.Plugin, pushsender.Plugin)
}

func TestScripts(t *testing.T) {
	storagetest.EachConfig(t, func(t *testing.T, c storage.Config) {
		plugintest.Run(t, plugintest.Options{Plugins: house(), Storage: func() storage.Config { return c }}, "testdata/*.txtar")
	})
}

// The command, and what it has registered, may be used on different nodes.
func TestScriptsOnNodes(t *testing.T) {
	c := storagetest.Postgres(t)
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Nodes: 3, Storage: func() storage.Config { return c }})
	script.Test(t, &script.Runner{Target: plugintest.Spread{House: h}}, "testdata/*.txtar")
}
