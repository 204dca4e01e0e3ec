package register_test

import (
	"testing"

	"parley/parser"
	"parley/plugins"
	"parley/plugins/accounts"
	"parley/plugins/admin"
	"parley/plugins/admincommands"
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

const options = `
servers:
  streamer:
    components:
      accounts: {iterations: 4096}
      register: {enabled: true, per_hour: 0}
  processor:
    components:
      register: {enabled: true}
`

func house() []plugins.Plugin {
	return []plugins.Plugin{router.Plugin, processor.Plugin, parser.Plugin, stream.Plugin, accounts.Plugin, ping.Plugin, roster.Plugin, presence.Plugin, disco.Plugin,
		admin.Plugin, commands.Plugin, admincommands.Plugin, invitations.Plugin, register.Plugin}
}

func TestScripts(t *testing.T) {
	plugintest.Run(t, plugintest.Options{Plugins: house(), Config: options}, "testdata/*.txtar")
}
