package clients_test

import (
	"testing"

	"parley/parser"
	"parley/plugins"
	"parley/plugins/accounts"
	"parley/plugins/admin"
	"parley/plugins/admincommands"
	"parley/plugins/clients"
	"parley/plugins/commands"
	"parley/plugins/disco"
	"parley/plugins/invitations"
	"parley/plugins/ping"
	"parley/plugins/plugintest"
	"parley/plugins/presence"
	"parley/plugins/register"
	"parley/plugins/roster"
	"parley/processor"
	"parley/router"
	"parley/stream"
)

func house() []plugins.Plugin {
	return []plugins.Plugin{router.Plugin, processor.Plugin, parser.Plugin, stream.Plugin, accounts.Plugin, ping.Plugin, roster.Plugin, presence.Plugin, disco.Plugin,
		admin.Plugin, commands.Plugin, admincommands.Plugin, invitations.Plugin, register.Plugin, clients.Plugin}
}

func TestScripts(t *testing.T) {
	plugintest.Run(t, plugintest.Options{Plugins: house()}, "testdata/*.txtar")
}
