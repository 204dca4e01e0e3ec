// Package kinds tells what a message is: words, a receipt, typing, a call, an
// encrypted payload, and what its sender wishes for it.
//
// Specs: XEP-0334 (hints), XEP-0160 §3 and XEP-0313 §6.1.1 (what is kept),
// XEP-0280 §6.1 (what is copied to other devices), and those named in the
// table. It is a leaf: the archive, carbons and push agree because all three
// ask here.
package kinds

import (
	"parley/parser/stanza"
	"parley/router/delivery"
)

// Traits is a set of what a message carries.
type Traits uint32

// The traits.
const (
	Body      Traits = 1 << iota // RFC 6121 §5.2.3
	ChatState                    // XEP-0085
	Receipt                      // XEP-0184
	Marker                       // XEP-0333
	Reaction                     // XEP-0444
	Edit                         // XEP-0308, XEP-0424, XEP-0425, XEP-0422: changes an earlier message
	Encrypted                    // XEP-0384, XEP-0373, XEP-0027
	Call                         // XEP-0353, XEP-0482
	File                         // XEP-0447, XEP-0066
	Invite                       // XEP-0249, XEP-0045 §7.8.2
	Room                         // XEP-0045: <x xmlns='…muc#user'/>

	Store            // XEP-0334 §4.4
	NoStore          // XEP-0334 §4.2
	NoPermanentStore // XEP-0334 §4.1
	NoCopy           // XEP-0334 §4.3
	Private          // XEP-0280 §9

	Wrapped // a carbon or an archive result: only the account's own server makes these
)

// kept are the traits of a message that tells its recipient something that
// still matters tomorrow.
const kept = Body | Receipt | Marker | Reaction | Edit | Encrypted | Call | File | Invite | Store

// spaces are the traits of every child in a namespace.
var spaces = map[string]Traits{
	stanza.NSChatStates:              ChatState,
	"urn:xmpp:receipts":              Receipt,
	"urn:xmpp:chat-markers:0":        Marker,
	"urn:xmpp:reactions:0":           Reaction,
	"urn:xmpp:message-correct:0":     Edit,
	"urn:xmpp:message-retract:1":     Edit,
	"urn:xmpp:message-retract:0":     Edit,
	"urn:xmpp:message-moderate:1":    Edit,
	"urn:xmpp:message-moderate:0":    Edit,
	"urn:xmpp:message-attaching:1":   Edit,
	"urn:xmpp:fasten:0":              Edit,
	"urn:xmpp:jingle-message:0":      Call,
	"urn:xmpp:call-invites:0":        Call,
	"urn:xmpp:sfs:0":                 File,
	"jabber:x:oob":                   File,
	"jabber:x:conference":            Invite,
	"jabber:x:encrypted":             Encrypted,
	"urn:xmpp:openpgp:0":             Encrypted,
	"urn:xmpp:omemo:1":               Encrypted,
	"urn:xmpp:omemo:2":               Encrypted,
	"eu.siacs.conversations.axolotl": Encrypted,
	NSMUCUser:                        Room,
}

// names are the traits of single elements.
var names = map[stanza.Name]Traits{
	{Space: stanza.NSHints, Local: "store"}:                Store,
	{Space: stanza.NSHints, Local: "no-store"}:             NoStore,
	{Space: stanza.NSHints, Local: "no-storage"}:           NoStore, // as XEP-0334 had it before 0.2
	{Space: stanza.NSHints, Local: "no-permanent-store"}:   NoPermanentStore,
	{Space: stanza.NSHints, Local: "no-permanent-storage"}: NoPermanentStore,
	{Space: stanza.NSHints, Local: "no-copy"}:              NoCopy,
	{Space: stanza.NSCarbons, Local: "private"}:            Private,
	{Space: stanza.NSCarbons, Local: "sent"}:               Wrapped,
	{Space: stanza.NSCarbons, Local: "received"}:           Wrapped,
	{Space: NSArchive, Local: "result"}:                    Wrapped,
	{Space: "urn:xmpp:mam:1", Local: "result"}:             Wrapped, // clients of old listen to it still
	{Space: "urn:xmpp:mam:0", Local: "result"}:             Wrapped,
	{Space: "urn:xmpp:mam:tmp", Local: "result"}:           Wrapped,
	{Space: "urn:xmpp:carbons:1", Local: "sent"}:           Wrapped,
	{Space: "urn:xmpp:carbons:1", Local: "received"}:       Wrapped,
}

// Namespaces that stanza does not name.
const (
	NSArchive = "urn:xmpp:mam:2"
	NSMUCUser = "http://jabber.org/protocol/muc#user"
)

// Kind is what a message is.
type Kind struct {
	Type   string // one of the five of RFC 6121 §5.2.2; normal when absent or unknown
	Traits Traits
}

// Of looks at a message's top level.
func Of(st *stanza.Stanza) Kind {
	k := Kind{Type: delivery.MessageType(st)}
	for i := range st.Children {
		k.Traits |= ofChild(st.Children[i].Name)
	}
	if k.Has(Room) && mediated(st) {
		k.Traits |= Invite
	}
	return k
}

func ofChild(n stanza.Name) Traits {
	if n.Space == stanza.NSClient { // nearly every child, several times on its way
		if n.Local == "body" {
			return Body
		}
		return 0
	}
	if t, ok := names[n]; ok {
		return t
	}
	return spaces[n.Space]
}

// mediated reports a mediated invitation (XEP-0045 §7.8.2).
func mediated(st *stanza.Stanza) bool {
	x := st.Child(NSMUCUser, "x")
	return x != nil && (x.Child(NSMUCUser, "invite") != nil || x.Child(NSMUCUser, "decline") != nil)
}

// IsWrapper reports whether a child is a carbon or an archive result. Clients
// believe those that come from their own account, so nobody else may send one.
func IsWrapper(n stanza.Name) bool { return ofChild(n)&Wrapped != 0 }

// Has reports whether the message has one of the traits.
func (k Kind) Has(t Traits) bool { return k.Traits&t != 0 }

// Lasting reports whether the message is to be stored: it is of type normal or
// chat, says something that lasts, and its sender does not object (XEP-0160
// §3, XEP-0313 §6.1.1, XEP-0334 §4). Hints in errors count for nothing.
func (k Kind) Lasting() bool {
	return (k.Type == stanza.TypeNormal || k.Type == stanza.TypeChat) && k.Has(kept) && !k.Has(NoStore)
}

// Says reports whether people read the message: words, a file, an invitation.
// What changes an earlier one, or goes with it, is none (XEP-0430 §2: an instant
// message, not an ancillary one).
func (k Kind) Says() bool {
	return k.Type != stanza.TypeError && k.Type != stanza.TypeHeadline && k.Has(Body|Encrypted|File|Invite) && !k.Has(Edit|Reaction|Wrapped)
}

// Fleeting reports whether nobody misses the message when it gets lost: what
// is worth neither storing nor an error to its sender (XEP-0085 §5.6).
func (k Kind) Fleeting() bool {
	return (k.Type == stanza.TypeNormal || k.Type == stanza.TypeChat) && k.Has(ChatState) && !k.Has(kept)
}

// Direction tells on which side of an account a message is.
type Direction uint8

// The directions.
const (
	Sent Direction = iota
	Received
)

// Copied reports whether other devices of the account get a copy (XEP-0280
// §6.1). An error is copied when what it answers was, which only the caller
// can know: false.
func (k Kind) Copied(d Direction) bool {
	switch {
	case k.Has(Private|NoCopy|Wrapped) || k.Type == stanza.TypeGroupchat || k.Type == stanza.TypeError:
		return false
	case k.Has(Invite):
		return true
	case d == Received && k.Has(Room): // a private message in a room: the room copies it itself
		return false
	case k.Type == stanza.TypeChat:
		return true
	case k.Type == stanza.TypeHeadline:
		return false
	}
	return k.Has(kept&^Store | ChatState)
}
