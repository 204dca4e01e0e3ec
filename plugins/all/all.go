// Package all lists every plugin that is compiled in. An own build is an own
// main with one more element.
package all

import (
	"parley/parser"
	"parley/plugins"
	"parley/plugins/accounts"
	"parley/plugins/admin"
	"parley/plugins/entitytime"
	"parley/plugins/health"
	"parley/plugins/ping"
	"parley/plugins/version"
	"parley/processor"
	"parley/router"
	"parley/stream"
)

// Plugins returns the list: the stages from the last to the first, so that
// each starts before those that send to it, then the features.
func Plugins() []plugins.Plugin {
	return []plugins.Plugin{
		router.Plugin,
		processor.Plugin,
		parser.Plugin,
		stream.Plugin,
		admin.Plugin,
		accounts.Plugin,
		entitytime.Plugin,
		health.Plugin,
		ping.Plugin,
		version.Plugin,
	}
}
