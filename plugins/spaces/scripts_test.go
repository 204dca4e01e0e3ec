package spaces_test

import (
	"testing"

	"parley/plugins"
	"parley/plugins/archive"
	"parley/plugins/plugintest"
	"parley/plugins/pubsub"
	"parley/plugins/spaces"
)

func house() []plugins.Plugin {
	return plugintest.Basics(archive.Plugin, pubsub.Plugin, spaces.Plugin)
}

func TestScripts(t *testing.T) {
	plugintest.Run(t, plugintest.Options{Plugins: house()}, "testdata/*.txtar")
}
