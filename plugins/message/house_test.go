package message_test

import (
	"testing"

	"parley/plugins"
	"parley/plugins/archive"
	"parley/plugins/carbons"
	"parley/plugins/plugintest"
)

func house() []plugins.Plugin {
	return plugintest.Basics(archive.Plugin, carbons.Plugin)
}

func TestScripts(t *testing.T) {
	plugintest.Run(t, plugintest.Options{Plugins: house()}, "testdata/*.txtar")
}
