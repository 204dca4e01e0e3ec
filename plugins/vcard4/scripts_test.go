package vcard4_test

import (
	"testing"

	"parley/plugins"
	"parley/plugins/archive"
	"parley/plugins/blocking"
	"parley/plugins/carbons"
	"parley/plugins/plugintest"
	"parley/plugins/pubsub"
	"parley/plugins/vcard"
	"parley/plugins/vcard4"
)

func house() []plugins.Plugin {
	return plugintest.Basics(archive.Plugin, blocking.Plugin, carbons.Plugin, pubsub.Plugin, vcard.Plugin, vcard4.Plugin)
}

func TestScripts(t *testing.T) {
	plugintest.Run(t, plugintest.Options{Plugins: house()}, "testdata/*.txtar")
}
