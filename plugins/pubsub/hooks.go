package pubsub

import (
	"context"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/plugins/disco"
	"parley/processor"
	"parley/storage"
)

// Where other features take part. All hooks fire on the node that handles the
// request, with no lock held; what a feature registers goes when it goes.
var (
	// Defaults fires when a node is about to be created, or somebody asks what it
	// would be like: hooks set what their well-known nodes need. It fires before
	// what the creator wishes is applied. It must not depend on anything but the
	// address and the type.
	Defaults = processor.NewHook[*Default]("pubsub-defaults")
	// Fields fires when a configuration form is made or read: hooks add fields of
	// their own, which keep their values in Settings.Extra.
	Fields = processor.NewHook[*Form]("pubsub-fields")
	// Publishing fires before items are published, when it is sure that the
	// publisher may: an error refuses them all and becomes the answer. Hooks may
	// change what is published and add rows to the same transaction. It fires again
	// when the node has come or gone meanwhile. Normal is for features, Late for who
	// needs the final payload.
	Publishing = processor.NewHook[*Publication]("pubsub-publishing")
	// Published fires after items have been published and subscribers told.
	// Errors are logged.
	Published = processor.NewHook[*Publication]("pubsub-published")
	// Retracting fires before items are removed on somebody's demand: an error
	// refuses it, hooks may add rows. Those that expire, are pushed out, or go with
	// their node do not pass here.
	Retracting = processor.NewHook[*Retraction]("pubsub-retracting")
	// Retracted fires after items were removed and subscribers told: retracted,
	// purged, pushed out by newer ones, or over (By is zero then, and there may be no
	// IDs). Errors are logged.
	Retracted = processor.NewHook[*Retraction]("pubsub-retracted")
	// Deleting fires before a node is deleted: an error refuses that. It does not
	// fire for what derives from it.
	Deleting = processor.NewHook[*Deletion]("pubsub-deleting")
	// Deleted fires after a node was deleted and subscribers told. It does not fire
	// when its account is removed (processor.AccountRemoved). Errors are logged.
	Deleted = processor.NewHook[*Deletion]("pubsub-deleted")
	// Configured fires after a node was created or configured. Errors are logged.
	Configured = processor.NewHook[*Configuration]("pubsub-configured")
	// Joined fires after somebody's subscription to a node
	// has begun, changed or ended. Errors are logged.
	Joined = processor.NewHook[*Joining]("pubsub-joined")
	// Settling fires before a node is created or configured: hooks change what it
	// is going to be like; an error refuses that and becomes the answer.
	Settling = processor.NewHook[*Settlement]("pubsub-settling")
	// Describing fires when a service or one of its nodes is asked what it is
	// (XEP-0030 §3), by somebody who may know.
	Describing = processor.NewHook[*Description]("pubsub-describing")
	// ServiceAsked fires when a common service is asked something that is not of
	// pubsub: a hook that knows what to say answers, and stops.
	ServiceAsked = processor.NewHook[*ServiceQuery]("pubsub-service-asked")
	// Retrieving fires before items are read for somebody who may: hooks change the
	// query by what else the request holds. An error becomes the answer.
	Retrieving = processor.NewHook[*Retrieval]("pubsub-retrieving")
)

// Default is the event of Defaults.
type Default struct {
	Address
	Type     string    // pubsub#type as the creator wishes it; "": not told
	Settings *Settings // to be changed
}

// Form is the event of Fields.
type Form struct {
	Address
	Table form.Table[Settings] // to be appended to
}

// Extra binds a field of another feature, a line of at most limit bytes that is
// kept in Settings.Extra under its name.
func Extra(name, label string, limit int) form.Binding[Settings] {
	b := form.Text(name, label, limit, func(*Settings) *string { return new(string) })
	set := b.Set
	b.Get = func(s *Settings) []string { return s.Extra[name] }
	b.Set = func(s *Settings, v []string) string {
		if reason := set(s, v); reason != "" {
			return reason
		}
		if v[0] == "" {
			v = nil
		}
		s.SetExtra(name, v)
		return ""
	}
	return b
}

// Rows are what hooks add to a transaction.
type Rows struct{ rows []hookRow }

type hookRow struct {
	stmt *storage.Stmt
	args []any
}

// Store adds a row: it is there when and only when what the event is about is.
// It is written behind the items. A Stmt with Must that changes nothing fails
// the whole as storage.ErrStale.
func (r *Rows) Store(s *storage.Stmt, args ...any) { r.rows = append(r.rows, hookRow{s, args}) }

// write is for inside the transaction.
func (r *Rows) write(ctx context.Context, tx storage.Tx) error {
	for _, row := range r.rows {
		n, err := tx.Exec(ctx, row.stmt.SQL, row.args...)
		switch {
		case err != nil:
			return err
		case n == 0 && row.stmt.Must:
			return storage.ErrStale
		}
	}
	return nil
}

// Settlement is the event of Settling.
type Settlement struct {
	Address
	By        jid.JID
	House     bool      // a feature demands it
	Published bool      // the node comes with its first publication, it was not asked for
	Before    *Settings // nil: the node is created
	Settings  *Settings // to be changed
	// Base, when a hook sets it as a node is created: the node that it derives from.
	// Who may read that one may read this, which goes with it, is not listed among
	// the nodes, has a limit of its own, and may be created by a publication of
	// anybody: the hook says whose. It belongs to the owners of the base.
	Base *Node
}

// ServiceQuery is the event of ServiceAsked.
type ServiceQuery struct {
	*stanza.Stanza
	Query, Answer *stanza.Element // Answer: for the hook that stops
}

// Description is the event of Describing.
type Description struct {
	*disco.Facts         // to be added to
	Service      jid.JID //
	Node         *Node   // nil: the service is asked about; accounts' own have disco.Info
}

// Publication is the event of Publishing and Published.
type Publication struct {
	Rows                    // for Publishing
	Node    *Node           // as it is, or is going to be; shared, not to be changed
	New     bool            // the node does not exist yet
	By      jid.JID         // who publishes, full or bare; the house in the name of an account: its bare JID
	House   bool            // a feature publishes
	Items   []*Item         // Publishing: IDs are set, Payload may be replaced by another element
	Request *stanza.Element // <pubsub/>; nil: the house publishes
	Sum     *Sum            // for Publishing: what else is written in the same transaction; nil: nothing
}

// Retraction is the event of Retracting and Retracted.
type Retraction struct {
	Rows          // for Retracting
	Node  *Node   //
	By    jid.JID // as in Publication; zero: the node was full
	House bool    // a feature removes them
	IDs   []string
	All   bool // the node was purged; no IDs
	Sum   *Sum // for Retracting, as in Publication; not for All
}

// Deletion is the event of Deleting and Deleted.
type Deletion struct {
	Node  *Node // as it was
	By    jid.JID
	House bool // a feature deletes it, or it goes with another
}

// Configuration is the event of Configured.
type Configuration struct {
	Node   *Node     // as it is
	Before *Settings // nil: it has been created
	By     jid.JID
}

// Joining is the event of Joined.
type Joining struct {
	Node         *Node
	Subscription Subscription    // NoneAnyMore: it has ended
	By           jid.JID         // the subscriber, or an owner; zero: it ended of itself
	Request      *stanza.Element // <subscribe/>, when the subscriber asks for it; else nil
}

// Retrieval is the event of Retrieving.
type Retrieval struct {
	Node    *Node
	By      jid.JID
	Request *stanza.Element // <pubsub/>
	Query   *Query          // to be changed
}
