// Package spaces is what a server does for spaces (XEP-0503): nodes of that type
// are configured as spaces have to be, and what is inside one says so.
//
// pubsub does the work.
package spaces

import (
	"context"

	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/disco"
	"parley/plugins/pubsub"
	"parley/processor"
)

// Name is the plugin's name.
const Name = "spaces"

// NS is the namespace, and the type of nodes (XEP-0503 §3).
const NS = "urn:xmpp:spaces:0"

// Images are items of a space (XEP-0503 §5.2.1).
const (
	itemAvatar = "urn:xmpp:spaces:avatar:metadata:0"
	itemBanner = "urn:xmpp:spaces:banner:metadata:0"
	nsMetadata = "urn:xmpp:avatar:metadata"
)

// Plugin provides the component.
var Plugin = plugins.Plugin{
	Name:       Name,
	Doc:        "Spaces: groups of rooms and feeds around one theme.",
	Requires:   []string{pubsub.Name, "disco"},
	Components: []plugins.Maker{{Server: processor.Name, New: newSpaces}},
}

type spaces struct{ pubsub *pubsub.PubSub }

var _ processor.Component = (*spaces)(nil)

func newSpaces(env plugins.Env, _ plugins.Config) (plugins.Component, error) {
	p, err := plugins.Need[*pubsub.PubSub](env, pubsub.Name)
	return &spaces{p}, err
}

// Start implements plugins.Component.
func (*spaces) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (*spaces) Stop(context.Context) error { return nil }

// Register implements processor.Component.
func (s *spaces) Register(r *processor.Registrar) {
	pubsub.Profiles(r, pubsub.Profile{Type: NS, Set: begin, Must: rules(), Check: check})
	processor.On(r, pubsub.Describing, processor.Normal, s.describe)
}

// begin is how a space begins (XEP-0503 §3): a public one, of as many things as
// fit.
func begin(s *pubsub.Settings) {
	s.Access, s.Publish, s.MaxItems, s.Persist, s.PurgeOffline = pubsub.Open, pubsub.Publishers, pubsub.Max, true, false
	s.NotifyRetract, s.NotifyDelete, s.NotifyConfig, s.NotifySub = true, true, true, true
}

// rules are the MUSTs of XEP-0503 §3, and its SHOULD NOT: who may write into a
// space that others trust is not left to anybody.
func rules() []pubsub.Rule {
	return []pubsub.Rule{
		{Field: "pubsub#notify_retract", Want: "true", OK: func(s *pubsub.Settings) bool { return s.NotifyRetract }},
		{Field: "pubsub#persist_items", Want: "true", OK: func(s *pubsub.Settings) bool { return s.Persist }},
		{Field: "pubsub#purge_offline", Want: "false", OK: func(s *pubsub.Settings) bool { return !s.PurgeOffline }},
		{Field: "pubsub#publish_model", Want: "publishers or subscribers", OK: func(s *pubsub.Settings) bool { return s.Publish != pubsub.Anybody }},
		{Field: "pubsub#access_model", Want: "open, or authorize or whitelist for a private space", OK: func(s *pubsub.Settings) bool {
			return s.Access == pubsub.Open || s.Access == pubsub.Authorize || s.Access == pubsub.Whitelist
		}},
	}
}

// check is XEP-0503 §5.2.1; entities of any kind may be in a space (§5.4).
func check(it *pubsub.Item) error {
	if it.ID != itemAvatar && it.ID != itemBanner {
		return nil
	}
	if it.Payload == nil || it.Payload.Name != (stanza.Name{Space: nsMetadata, Local: "metadata"}) {
		return pubsub.InvalidPayload("the images of a space are the metadata of an avatar")
	}
	return nil
}

// describe lets a node whose parent (XEP-0496) is a space say so (XEP-0503 §5.5).
func (s *spaces) describe(ctx context.Context, d *pubsub.Description) (processor.Verdict, error) {
	if d.Node == nil || d.Node.Settings.Parent() == "" {
		return processor.Continue, nil
	}
	space, err := s.pubsub.Node(ctx, pubsub.Address{Service: d.Service, Node: d.Node.Settings.Parent()})
	if err != nil || space == nil || space.Settings.Type != NS {
		return processor.Continue, err
	}
	d.AddFeature(NS)
	d.AddForm(disco.Form{Type: NS, Fields: []disco.Field{{
		Var: "parent", Type: "text-single", Label: "The space it is in", Values: []string{space.URI("")},
	}}})
	return processor.Continue, nil
}
