package inbox_test

import (
	"testing"

	"parley/plugins"
	"parley/plugins/archive"
	"parley/plugins/blocking"
	"parley/plugins/bookmarks"
	"parley/plugins/carbons"
	"parley/plugins/displayed"
	"parley/plugins/inbox"
	"parley/plugins/muc"
	"parley/plugins/plugintest"
	"parley/plugins/private"
	"parley/plugins/pubsub"
	"parley/storage"
	"parley/storage/storagetest"
)

func house() []plugins.Plugin {
	return plugintest.Basics(archive.Plugin, blocking.Plugin, bookmarks.Plugin, carbons.Plugin, displayed.Plugin, inbox.Plugin, muc.Plugin, private.Plugin, pubsub.Plugin)
}

func TestScripts(t *testing.T) {
	storagetest.EachConfig(t, func(t *testing.T, c storage.Config) {
		plugintest.Run(t, plugintest.Options{Plugins: house(), Storage: func() storage.Config { return c }}, "testdata/*.txtar")
	})
}
