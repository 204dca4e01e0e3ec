package pubsub_test

import (
	"testing"

	"parley/plugins"
	"parley/plugins/archive"
	"parley/plugins/blocking"
	"parley/plugins/plugintest"
	"parley/plugins/pubsub"
)

func house() []plugins.Plugin {
	return plugintest.Basics(archive.Plugin, blocking.Plugin, pubsub.Plugin)
}

func TestScripts(t *testing.T) {
	plugintest.Run(t, plugintest.Options{Plugins: house()}, "testdata/*.txtar")
}

// What a request says in its paging fields, names and ids is never SQL.
func TestSecurityFeedsSQLInjection(t *testing.T) {
	plugintest.Run(t, plugintest.Options{Plugins: house()}, "testdata/injection.txtar")
}
