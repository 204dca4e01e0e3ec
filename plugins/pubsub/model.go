package pubsub

import (
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
)

// Address names a node (XEP-0060 §4.6.2).
type Address struct {
	Service jid.JID // an account's bare JID (PEP), or the domain of a service
	Node    string
}

// PEP reports whether the node belongs to an account's own service.
func (a Address) PEP() bool { return a.Service.Local() != "" }

// Affiliation is what somebody is to a node (XEP-0060 §4.1).
type Affiliation string

// The affiliations.
const (
	None        Affiliation = "none"
	Owner       Affiliation = "owner"
	Publisher   Affiliation = "publisher"
	PublishOnly Affiliation = "publish-only"
	Member      Affiliation = "member"
	Outcast     Affiliation = "outcast"
)

// right is something that an affiliation allows (XEP-0060 §4.1, Table 1).
type right uint8

const (
	mayRead    right = 1 << iota // subscribe and retrieve, whatever the access model
	mayPublish                   // whatever the publish model
	mayRemove                    // items of others, and all at once
	mayManage                    // configure, delete, affiliations, subscriptions
)

// rights is XEP-0060 §4.1, Table 1. Publishers remove everybody's items, who may
// only publish removes their own. None has what the models of the node give.
var rights = map[Affiliation]right{
	Owner:       mayRead | mayPublish | mayRemove | mayManage,
	Publisher:   mayRead | mayPublish | mayRemove,
	PublishOnly: mayPublish,
	Member:      mayRead,
	None:        0,
	Outcast:     0,
}

// may reports whether the affiliation alone gives the right.
func (a Affiliation) may(r right) bool { return rights[a]&r != 0 }

// State is the state of a subscription (XEP-0060 §4.2).
type State string

// The states. What is not subscribed is not kept; nobody has to configure first,
// so there is no "unconfigured".
const (
	Subscribed  State = "subscribed"
	Pending     State = "pending"
	NoneAnyMore State = "none"
)

// Node is a node as it stands, without its items. It must not be changed.
type Node struct {
	Address
	Account      jid.JID // whose limits it counts towards: the owner of the service, or who created it
	Creator      jid.JID
	Created      time.Time
	Settings     Settings
	Affiliations map[jid.JID]Affiliation // by bare JID; without None
	Base         string                  // the node of the same service that it derives from, see Settlement; "": none
	id, baseID   int64
}

// Affiliation returns what somebody, of any JID, is to the node. The account
// that a service belongs to owns all its nodes.
func (n *Node) Affiliation(who jid.JID) Affiliation {
	bare := who.Bare()
	if n.PEP() && bare == n.Service {
		return Owner
	}
	if a, ok := n.Affiliations[bare]; ok {
		return a
	}
	return None
}

// with returns the bare JIDs that have an affiliation, in no order.
func (n *Node) with(a Affiliation) (out []jid.JID) {
	for j, has := range n.Affiliations {
		if has == a {
			out = append(out, j)
		}
	}
	return out
}

// Item is an item of a node.
type Item struct {
	ID        string
	Publisher jid.JID         // who published it, full or bare as it came
	At        time.Time       // when it was last published (XEP-0413: modification)
	Created   time.Time       // when an item of this id was first published (XEP-0413: creation)
	Payload   *stanza.Element // nil: it has none. Shared: it must not be changed
	seq       int64           // its place in the order of publication, ascending
	size      int             // of the payload, in bytes
	expires   int64           // unix microseconds; 0: never
}

// Entry is an item that is to be published.
type Entry struct {
	ID      string          // "": one is made up
	Payload *stanza.Element // nil: none
}

// Subscription is somebody's subscription to a node.
type Subscription struct {
	JID     jid.JID // bare or full, as it was asked for
	State   State
	Options Options
	node    int64
	name    string // of the node, where one list is of several
	asked   bool   // the subscriber asks for it
}

// Options are the options of a subscription (XEP-0060 §16.4.2).
type Options struct {
	Deliver bool      `json:"deliver"`
	Show    []string  `json:"show,omitempty"` // presence states in which it is delivered; empty: any, and none
	Expire  time.Time `json:"expire,omitzero"`
	Temp    bool      `json:"temp,omitempty"` // ends when the subscriber becomes unavailable
}

func defaultOptions() Options { return Options{Deliver: true} }

// Query chooses items of a node. The zero value asks for all, oldest first.
type Query struct {
	IDs       []string // these alone, in this order
	Newest    int      // that many of the newest; 0: all
	After     string   // behind the item of this id
	Before    string   // before it
	Backward  bool     // the page ends there instead of beginning: with Before "" the last page
	Limit     int      // of the page; 0: as many as the service gives in one answer
	ByCreated bool     // in the order of creation (XEP-0413)
	CountOnly bool     // no items
}

// Page is what a Query has found.
type Page struct {
	Items []*Item // in ascending order
	Index int     // of the first one in the whole node; negative: not told
	Count int     // of the whole node; negative: not told
}
