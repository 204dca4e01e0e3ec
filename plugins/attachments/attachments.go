// Package attachments keeps what people attach to items of others: that they have
// noticed them, reactions (XEP-0470). It is "fully compliant" in the words of §4.2.
//
// Each item that somebody attaches something to has a node, made by the first of
// them, with one item per person; each node with such items has a summary, an item
// per item, which is written in the transaction that changes what it counts
// (pubsub.Sum). Both derive from the node of the items: who may read that one may
// read them, and they go with it.
//
//	names        names.go    of the two kinds of nodes
//	rules        rules.go    who may do what with them
//	summary      summary.go  how attachments are counted
package attachments

import (
	"context"

	"parley/plugins"
	"parley/plugins/config"
	"parley/plugins/pubsub"
	"parley/processor"
)

// Name is the plugin's name.
const Name = "attachments"

// Namespaces of XEP-0470.
const (
	NS        = "urn:xmpp:pubsub-attachments:1"
	NSSummary = "urn:xmpp:pubsub-attachments:summary:1"
)

// Plugin provides the component.
var Plugin = plugins.Plugin{
	Name:       Name,
	Doc:        "Reactions and the like to what is published, with a summary that the server keeps.",
	Requires:   []string{pubsub.Name},
	Components: []plugins.Maker{{Server: processor.Name, Defaults: defaults(), New: newAttachments}},
}

// Config is the component's section.
type Config struct {
	From Who         `yaml:"from" enum:"readers,publishers" doc:"Who may attach something to an item: who may read it, or who may publish where it is. XEP-0470 §4.3 has the latter, with which nobody but its author can react to a post in a blog."`
	Size config.Size `yaml:"max_size" min:"256" max:"64KiB" doc:"Largest item of attachments of one person; it counts towards what the owner of the node may keep."`
}

// Who may attach.
type Who string

// Those who may.
const (
	Readers    Who = "readers"
	Publishers Who = "publishers"
)

func defaults() *Config { return &Config{From: Readers, Size: 8 << 10} }

type attachments struct {
	cfg    Config
	pubsub *pubsub.PubSub
}

var _ processor.Component = (*attachments)(nil)

func newAttachments(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	a := &attachments{cfg: *defaults()}
	if err := c.Decode(&a.cfg); err != nil {
		return nil, err
	}
	var err error
	a.pubsub, err = plugins.Need[*pubsub.PubSub](env, pubsub.Name)
	return a, err
}

// Start implements plugins.Component.
func (*attachments) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (*attachments) Stop(context.Context) error { return nil }

// Register implements processor.Component.
func (a *attachments) Register(r *processor.Registrar) {
	r.AccountFeature(NS)
	processor.On(r, pubsub.Describing, processor.Normal, func(_ context.Context, d *pubsub.Description) (processor.Verdict, error) {
		if d.Node == nil { // XEP-0470 §6
			d.AddFeature(NS)
		}
		return processor.Continue, nil
	})
	processor.On(r, pubsub.Settling, processor.Normal, a.settle)
	processor.On(r, pubsub.Publishing, processor.Normal, a.publishing)
	processor.On(r, pubsub.Retracting, processor.Normal, a.retracting)
	processor.On(r, pubsub.Retracted, processor.Normal, a.retracted)
}
