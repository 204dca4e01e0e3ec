package bookmarks_test

import (
	"testing"

	"parley/plugins"
	"parley/plugins/archive"
	"parley/plugins/blocking"
	"parley/plugins/bookmarks"
	"parley/plugins/carbons"
	"parley/plugins/plugintest"
	"parley/plugins/private"
	"parley/plugins/pubsub"
)

func house() []plugins.Plugin {
	return plugintest.Basics(archive.Plugin, blocking.Plugin, bookmarks.Plugin, carbons.Plugin, private.Plugin, pubsub.Plugin)
}

func TestScripts(t *testing.T) {
	plugintest.Run(t, plugintest.Options{Plugins: house()}, "testdata/*.txtar")
}
