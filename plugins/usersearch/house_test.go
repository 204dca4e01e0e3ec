package usersearch_test

import (
	"testing"

	"parley/plugins"
	"parley/plugins/blocking"
	"parley/plugins/commands"
	"parley/plugins/plugintest"
	"parley/plugins/plugintest/script"
	"parley/plugins/pubsub"
	"parley/plugins/usersearch"
	"parley/plugins/vcard"
	"parley/plugins/vcard4"
	"parley/storage"
	"parley/storage/storagetest"
)

func house() []plugins.Plugin {
	return plugintest.Basics(blocking.Plugin, commands.Plugin, pubsub.Plugin, vcard.Plugin, vcard4.Plugin, usersearch.Plugin)
}

func TestScripts(t *testing.T) {
	storagetest.EachConfig(t, func(t *testing.T, c storage.Config) {
		plugintest.Run(t, plugintest.Options{Plugins: house(), Storage: func() storage.Config { return c }}, "testdata/*.txtar")
	})
}

// Who stores a vCard and who searches may be on different nodes.
func TestScriptsOnNodes(t *testing.T) {
	c := storagetest.Postgres(t)
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Nodes: 3, Storage: func() storage.Config { return c }})
	script.Test(t, &script.Runner{Target: plugintest.Spread{House: h}}, "testdata/*.txtar")
}
