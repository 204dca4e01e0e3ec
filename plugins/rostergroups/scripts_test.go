package rostergroups_test

import (
	"testing"

	"parley/plugins"
	"parley/plugins/admin"
	"parley/plugins/admincommands"
	"parley/plugins/archive"
	"parley/plugins/commands"
	"parley/plugins/plugintest"
	"parley/plugins/pubsub"
	"parley/plugins/rostergroups"
)

func house() []plugins.Plugin {
	return plugintest.Basics(admin.Plugin, archive.Plugin, commands.Plugin, admincommands.Plugin, pubsub.Plugin, rostergroups.Plugin)
}

func TestScripts(t *testing.T) {
	plugintest.Run(t, plugintest.Options{Plugins: house()}, "testdata/*.txtar")
}
