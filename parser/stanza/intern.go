package stanza

// common are the names, namespaces and values most stanzas are made of. The table is fixed: what a peer invents is
// never added to it.
var common = stringTable(
	"message", "presence", "iq", "stream", "error", "to", "from", "id", "type", "lang", "xmlns", "by", "jid", "node", "name", "xml",
	"get", "set", "result", "chat", "groupchat", "headline", "normal", "unavailable", "probe",
	"subscribe", "subscribed", "unsubscribe", "unsubscribed", "en", "de", "fr", "es", "it", "ru",
	"body", "subject", "thread", "show", "status", "priority", "query", "item", "items", "x", "c", "ver", "hash", "stamp", "var", "value",
	"field", "ping", "vCard", "photo", "text", "nick", "group", "subscription", "ask", "active", "composing", "paused", "inactive",
	"gone", "request", "received", "displayed", "markable", "acknowledged", "delay", "stanza-id", "origin-id", "occupant-id",
	"referenced-stanza", "reply", "replace", "reactions", "reaction", "retract", "apply-to", "fallback", "forwarded", "sent", "private",
	"encrypted", "header", "key", "keys", "payload", "iv", "rid", "sid", "prekey", "encryption", "store", "no-store", "no-copy",
	"no-permanent-store", "event", "pubsub", "publish", "history", "invite", "jingle", "propose", "proceed", "accept", "reject", "finish",
	"ringing", "content", "description", "transport", "reason", "candidate", "url", "data", "enable", "disable", "fin", "first", "last",
	"max", "count", "before", "after", "identity", "feature", "category", "code", "role", "affiliation", "namespace",
	NSClient, NSServer, NSComponent, NSStream, NSStanzas, NSStreams, NSSASL, NSBind, NSSession, NSXML, NSDelay, NSRoster, NSSM,
	NSDiscoInfo, NSDiscoItem, NSForward, NSStanzaID, NSCarbons, NSHints, NSDataForms,
	"http://jabber.org/protocol/chatstates", "http://jabber.org/protocol/caps", "http://jabber.org/protocol/muc",
	"http://jabber.org/protocol/muc#user", "http://jabber.org/protocol/muc#admin", "http://jabber.org/protocol/muc#owner",
	"http://jabber.org/protocol/pubsub", "http://jabber.org/protocol/pubsub#event", "http://jabber.org/protocol/pubsub#owner",
	"http://jabber.org/protocol/rsm", "http://jabber.org/protocol/nick", "urn:xmpp:receipts", "urn:xmpp:chat-markers:0",
	"urn:xmpp:message-correct:0", "urn:xmpp:reactions:0", "urn:xmpp:reply:0", "urn:xmpp:fallback:0", "urn:xmpp:eme:0",
	"urn:xmpp:occupant-id:0", "urn:xmpp:mam:2", "urn:xmpp:ping", "urn:xmpp:blocking", "urn:xmpp:avatar:metadata", "urn:xmpp:push:0",
	"urn:xmpp:jingle:1", "urn:xmpp:jingle-message:0", "urn:xmpp:message-retract:1", "urn:xmpp:bookmarks:1", "urn:xmpp:omemo:2",
	"eu.siacs.conversations.axolotl", "jabber:x:oob", "jabber:x:conference", "vcard-temp", "vcard-temp:x:update", "jabber:iq:version",
)

func stringTable(list ...string) map[string]string {
	m := make(map[string]string, len(list))
	for _, s := range list {
		m[s] = s
	}
	return m
}

// intern returns b as a string, without allocating for what is common.
func intern(b []byte) string {
	if s, ok := common[string(b)]; ok {
		return s
	}
	return string(b)
}
