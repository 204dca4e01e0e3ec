package nodearchive_test

import (
	"testing"

	"parley/plugins"
	"parley/plugins/archive"
	"parley/plugins/nodearchive"
	"parley/plugins/plugintest"
	"parley/plugins/pubsub"
)

func house() []plugins.Plugin {
	return plugintest.Basics(archive.Plugin, nodearchive.Plugin, pubsub.Plugin)
}

func TestScripts(t *testing.T) {
	plugintest.Run(t, plugintest.Options{Plugins: house()}, "testdata/*.txtar")
}
