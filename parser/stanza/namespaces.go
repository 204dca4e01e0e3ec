// Package stanza holds the XML of XMPP: elements, stanzas, errors and the stream reader.
//
// Specifications: RFC 6120 (§4.8 namespaces, §8 stanzas, §11 XML), RFC 7395 (framing), XML 1.0 and
// Namespaces in XML 1.0.
//
// The flow: a Reader cuts the bytes of a stream into complete first-level elements and enforces XML's rules and
// the limits while it reads. Parse looks at the top level of such an element only: the start tag and the names of
// its children; what lies inside stays bytes. A handler asks for the elements it cares about (Stanza.Child) and
// answers with elements of its own (Reply, ErrorReply, Make). Delivery takes a fresh start tag (Stamp) and copies the
// untouched inner bytes behind it (Edits.Render). Nothing that nobody changed is ever serialised again.
package stanza

// Namespaces of the core protocol.
const (
	NSClient         = "jabber:client"                        // RFC 6120 §4.8.2
	NSServer         = "jabber:server"                        // RFC 6120 §4.8.2
	NSComponent      = "jabber:component:accept"              // XEP-0114 §3
	NSStream         = "http://etherx.jabber.org/streams"     // RFC 6120 §4.8.1
	NSFraming        = "urn:ietf:params:xml:ns:xmpp-framing"  // RFC 7395 §3.3.2
	NSStreams        = "urn:ietf:params:xml:ns:xmpp-streams"  // RFC 6120 §4.9.2: stream error conditions
	NSStanzas        = "urn:ietf:params:xml:ns:xmpp-stanzas"  // RFC 6120 §8.3.2: stanza error conditions
	NSTLS            = "urn:ietf:params:xml:ns:xmpp-tls"      // RFC 6120 §5.4
	NSSASL           = "urn:ietf:params:xml:ns:xmpp-sasl"     // RFC 6120 §6.4
	NSBind           = "urn:ietf:params:xml:ns:xmpp-bind"     // RFC 6120 §7
	NSSession        = "urn:ietf:params:xml:ns:xmpp-session"  // RFC 3921 §3
	NSXML            = "http://www.w3.org/XML/1998/namespace" // Namespaces in XML §3: the prefix xml
	NSXMLNS          = "http://www.w3.org/2000/xmlns/"        // Namespaces in XML §3: the prefix xmlns
	NSErrors         = "urn:xmpp:errors"                      // XEP-0205, RFC 6120 §13.12: <stanza-too-big/>
	NSDelay          = "urn:xmpp:delay"                       // XEP-0203 §2
	NSRoster         = "jabber:iq:roster"                     // RFC 6121 §2
	NSSM             = "urn:xmpp:sm:3"                        // XEP-0198
	NSDiscoInfo      = "http://jabber.org/protocol/disco#info"
	NSDiscoItem      = "http://jabber.org/protocol/disco#items"
	NSForward        = "urn:xmpp:forward:0"                    // XEP-0297
	NSStanzaID       = "urn:xmpp:sid:0"                        // XEP-0359
	NSCarbons        = "urn:xmpp:carbons:2"                    // XEP-0280
	NSHints          = "urn:xmpp:hints"                        // XEP-0334
	NSSASL2          = "urn:xmpp:sasl:2"                       // XEP-0388
	NSBind2          = "urn:xmpp:bind:0"                       // XEP-0386
	NSFAST           = "urn:xmpp:fast:0"                       // XEP-0484
	NSCSI            = "urn:xmpp:csi:0"                        // XEP-0352
	NSChannelBinding = "urn:xmpp:sasl-cb:0"                    // XEP-0440
	NSChatStates     = "http://jabber.org/protocol/chatstates" // XEP-0085
	NSDataForms      = "jabber:x:data"                         // XEP-0004
)
