package attachments_test

import (
	"testing"

	"parley/plugins"
	"parley/plugins/archive"
	"parley/plugins/attachments"
	"parley/plugins/plugintest"
	"parley/plugins/pubsub"
)

func house() []plugins.Plugin {
	return plugintest.Basics(archive.Plugin, attachments.Plugin, pubsub.Plugin)
}

func TestScripts(t *testing.T) {
	plugintest.Run(t, plugintest.Options{Plugins: house()}, "testdata/*.txtar")
}
