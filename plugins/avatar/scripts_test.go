package avatar_test

import (
	"testing"

	"parley/plugins"
	"parley/plugins/archive"
	"parley/plugins/avatar"
	"parley/plugins/blocking"
	"parley/plugins/carbons"
	"parley/plugins/plugintest"
	"parley/plugins/pubsub"
	"parley/plugins/vcard"
)

func house() []plugins.Plugin {
	return plugintest.Basics(archive.Plugin, avatar.Plugin, blocking.Plugin, carbons.Plugin, pubsub.Plugin, vcard.Plugin)
}

func TestScripts(t *testing.T) {
	plugintest.Run(t, plugintest.Options{Plugins: house()}, "testdata/*.txtar")
}
