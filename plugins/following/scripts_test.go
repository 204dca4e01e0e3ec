package following_test

import (
	"testing"

	"parley/plugins"
	"parley/plugins/archive"
	"parley/plugins/following"
	"parley/plugins/plugintest"
	"parley/plugins/pubsub"
)

func house() []plugins.Plugin {
	return plugintest.Basics(archive.Plugin, following.Plugin, pubsub.Plugin)
}

func TestScripts(t *testing.T) {
	plugintest.Run(t, plugintest.Options{Plugins: house()}, "testdata/*.txtar")
}
