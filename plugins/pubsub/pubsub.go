// Package pubsub is publish-subscribe: every account is a service of its own
// (PEP), and each domain has one for everybody at pubsub.<domain>.
//
// Specs: XEP-0060 1.30 (all of it but multiple subscriptions of one address to
// one node), XEP-0163 (PEP), XEP-0222 and XEP-0223 (public and private data in
// it), XEP-0059 (pages), XEP-0413 (order).
//
// The flow of a request, the same for both kinds of services:
//
//	IQ            request.go   which service, who asks, which handler
//	node          directory.go from the cache, else from the database
//	may he        access.go    affiliation, access model, roster
//	hook          hooks.go     Publishing: a feature refuses, changes, adds rows
//	transaction   store.go     one commit: SQL is the truth
//	notify        notify.go    subscribers, then who is interested by presence
//	hook          hooks.go     Published, Retracted, Deleted
//
// What presence brings is in pep.go: a client that shows with its capabilities
// what it wants to hear of (+notify) gets the last items, of its own account and
// of its contacts'.
//
// Features build on it by the contract *PubSub (contract.go) and the hooks.
package pubsub

import (
	"context"
	"embed"
	"time"

	"parley/plugins"
	"parley/plugins/config"
	"parley/plugins/presence"
	"parley/plugins/roster"
	"parley/processor"
	"parley/storage"
	"parley/storage/atrest"
)

//go:embed sql
var migrations embed.FS

// Name is the plugin's name, for Requires and plugins.Need.
const Name = "pubsub"

// Namespaces of XEP-0060 §16.1, and of the forms in it.
const (
	NS            = "http://jabber.org/protocol/pubsub"
	NSOwner       = NS + "#owner"
	NSEvent       = NS + "#event"
	NSErrors      = NS + "#errors"
	FormConfig    = NS + "#node_config"
	FormPublish   = NS + "#publish-options"
	FormSubscribe = NS + "#subscribe_options"
	FormAuthorize = NS + "#subscribe_authorization"
	FormMeta      = NS + "#meta-data"
)

// Plugin provides the component and the contract *PubSub.
var Plugin = plugins.Plugin{
	Name:       Name,
	Doc:        "Nodes that people publish to and others follow: what an account shares of itself, and a service for everybody.",
	Requires:   []string{roster.Name, presence.Name, "disco"},
	Components: []plugins.Maker{{Server: processor.Name, Defaults: defaults(), New: newComponent}},
	Migrations: migrations,
	Sealed:     []atrest.Table{sealedItems},
	Restored: func(ctx context.Context, tx storage.Tx, reached int64) error { // items go on behind those that are gone
		_, err := tx.Exec(ctx, `UPDATE pubsub_node SET seq = $1 WHERE seq < $1`, reached)
		return err
	},
	Contract: func(env plugins.Env) (any, error) { return newPubSub(env) },
}

// Config is the component's section.
type Config struct {
	Prefix string `yaml:"host_prefix" doc:"The service for everybody is at this name before each domain; empty: there is none."`
	Limits
	LastItems int           `yaml:"last_items" min:"0" unit:"items" doc:"Last items that one client is sent when it becomes available; those of further contacts it has to ask for."`
	Page      int           `yaml:"max_page" min:"1" max:"1000" unit:"items" doc:"Items in one answer."`
	PageSize  config.Size   `yaml:"max_page_size" min:"64KiB" doc:"Payloads in one answer, together; one item always fits."`
	Expiry    time.Duration `yaml:"expiry_interval" min:"1s" doc:"How often items and subscriptions that have expired are removed; nobody sees them before, either."`
}

// Limits bound what one account may keep, at its own service and at the common
// one together (reliability row 18).
type Limits struct {
	Nodes         int         `yaml:"max_nodes" min:"1" doc:"Nodes of one account."`
	Derived       int         `yaml:"max_derived_nodes" min:"1" doc:"Nodes of one account that features derive from others, such as those of attachments to items."`
	Items         int         `yaml:"max_items" min:"1" doc:"Items of one node; what max_items=max means (XEP-0060 §16.4.4)."`
	Batch         int         `yaml:"max_batch" min:"1" doc:"Items in one request."`
	Payload       config.Size `yaml:"max_payload" min:"1KiB" doc:"Largest payload of one item."`
	Total         config.Size `yaml:"max_total_size" min:"64KiB" doc:"Payloads of all nodes of one account."`
	Subscribers   int         `yaml:"max_subscribers" min:"1" doc:"Subscriptions of one node, pending ones included."`
	Subscriptions int         `yaml:"max_subscriptions" min:"1" doc:"Subscriptions that one account may ask for at one service."`
	Affiliations  int         `yaml:"max_affiliations" min:"1" doc:"Affiliated addresses of one node."`
	NodeID        config.Size `yaml:"max_node_id" min:"64" max:"3071" doc:"Longest name of a node."`
	ItemID        config.Size `yaml:"max_item_id" min:"64" max:"3071" doc:"Longest id of an item."`
}

func defaults() *Config {
	return &Config{
		Prefix: "pubsub", LastItems: 500, Page: 100, PageSize: 1 << 20, Expiry: time.Minute,
		Limits: Limits{
			Nodes: 200, Derived: 10_000, Items: 10_000, Batch: 50, Payload: 256 << 10, Total: 32 << 20, Subscribers: 10_000,
			Subscriptions: 1000, Affiliations: 1000, NodeID: 512, ItemID: 512,
		},
	}
}
