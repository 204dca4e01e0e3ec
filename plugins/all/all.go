// Package all lists every plugin that is compiled in. An own build is an own
// main with one more element.
package all

import (
	"parley/parser"
	"parley/plugins"
	"parley/plugins/accountadmin"
	"parley/plugins/accounts"
	"parley/plugins/admin"
	"parley/plugins/admincommands"
	"parley/plugins/archive"
	"parley/plugins/attachments"
	"parley/plugins/avatar"
	"parley/plugins/blocking"
	"parley/plugins/bookmarks"
	"parley/plugins/carbons"
	"parley/plugins/commands"
	"parley/plugins/contact"
	"parley/plugins/disco"
	"parley/plugins/displayed"
	"parley/plugins/entitytime"
	"parley/plugins/extdisco"
	"parley/plugins/feeds"
	"parley/plugins/following"
	"parley/plugins/health"
	"parley/plugins/hostmeta"
	"parley/plugins/inbox"
	"parley/plugins/invitations"
	"parley/plugins/lastactivity"
	"parley/plugins/message"
	"parley/plugins/muc"
	"parley/plugins/mucsub"
	"parley/plugins/nodearchive"
	"parley/plugins/ping"
	"parley/plugins/presence"
	"parley/plugins/private"
	"parley/plugins/pubsub"
	"parley/plugins/quarantine"
	"parley/plugins/register"
	"parley/plugins/resumption"
	"parley/plugins/roster"
	"parley/plugins/session"
	"parley/plugins/spaces"
	"parley/plugins/vcard"
	"parley/plugins/vcard4"
	"parley/plugins/version"
	"parley/processor"
	"parley/router"
	"parley/stream"
	"parley/stream/component"
	"parley/stream/websocket"
)

// Plugins returns the list: the stages from the last to the first, so that
// each starts before those that send to it, then the features.
func Plugins() []plugins.Plugin {
	return []plugins.Plugin{
		router.Plugin,
		processor.Plugin,
		parser.Plugin,
		stream.Plugin,
		accountadmin.Plugin,
		accounts.Plugin,
		admin.Plugin,
		admincommands.Plugin,
		archive.Plugin,
		attachments.Plugin,
		avatar.Plugin,
		blocking.Plugin,
		bookmarks.Plugin,
		carbons.Plugin,
		commands.Plugin,
		component.Plugin,
		contact.Plugin,
		disco.Plugin,
		displayed.Plugin,
		entitytime.Plugin,
		extdisco.Plugin,
		feeds.Plugin,
		following.Plugin,
		health.Plugin,
		hostmeta.Plugin,
		inbox.Plugin,
		invitations.Plugin,
		lastactivity.Plugin,
		message.Plugin,
		muc.Plugin,
		mucsub.Plugin,
		nodearchive.Plugin,
		ping.Plugin,
		presence.Plugin,
		private.Plugin,
		pubsub.Plugin,
		quarantine.Plugin,
		register.Plugin,
		resumption.Plugin,
		roster.Plugin,
		session.Plugin,
		spaces.Plugin,
		vcard.Plugin,
		vcard4.Plugin,
		version.Plugin,
		websocket.Plugin,
	}
}
