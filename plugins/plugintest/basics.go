package plugintest

import (
	"parley/parser"
	"parley/plugins"
	"parley/plugins/accounts"
	"parley/plugins/disco"
	"parley/plugins/message"
	"parley/plugins/ping"
	"parley/plugins/presence"
	"parley/plugins/roster"
	"parley/processor"
	"parley/router"
	"parley/stream"
)

// Basics are the plugins of a house in which accounts talk to each other, and
// those that a test is about.
func Basics(more ...plugins.Plugin) []plugins.Plugin {
	return append([]plugins.Plugin{
		router.Plugin, processor.Plugin, parser.Plugin, stream.Plugin,
		accounts.Plugin, disco.Plugin, message.Plugin, ping.Plugin, presence.Plugin, roster.Plugin,
	}, more...)
}
