package muc_test

import (
	"testing"

	"parley/parser"
	"parley/plugins"
	"parley/plugins/accounts"
	"parley/plugins/archive"
	"parley/plugins/blocking"
	"parley/plugins/disco"
	"parley/plugins/muc"
	"parley/plugins/ping"
	"parley/plugins/plugintest"
	"parley/plugins/presence"
	"parley/plugins/resumption"
	"parley/plugins/roster"
	"parley/plugins/vcard"
	"parley/processor"
	"parley/router"
	"parley/stream"
)

func house() []plugins.Plugin {
	return []plugins.Plugin{
		router.Plugin, processor.Plugin, parser.Plugin, stream.Plugin, accounts.Plugin, ping.Plugin,
		disco.Plugin, roster.Plugin, presence.Plugin, blocking.Plugin, archive.Plugin, resumption.Plugin, vcard.Plugin, muc.Plugin,
	}
}

func TestScripts(t *testing.T) {
	plugintest.Run(t, plugintest.Options{Plugins: house()}, "testdata/*.txtar")
}
