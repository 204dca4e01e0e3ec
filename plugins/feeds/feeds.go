// Package feeds is what a server does for social feeds: nodes of the types that
// posts, comments, pictures and stories are kept in begin as their specifications
// want them, and take nothing else.
//
// Specs: XEP-0472 (with the base, microblog and gallery profiles), XEP-0277 (the
// microblog and its comments), XEP-0501 (stories).
//
// The profiles are a table (profiles.go); pubsub does the work.
package feeds

import (
	"context"

	"parley/plugins"
	"parley/plugins/pubsub"
	"parley/processor"
)

// Name is the plugin's name.
const Name = "feeds"

// Plugin provides the component.
var Plugin = plugins.Plugin{
	Name:       Name,
	Doc:        "Social feeds: microblogs with comments, galleries, stories that last a day.",
	Requires:   []string{pubsub.Name},
	Components: []plugins.Maker{{Server: processor.Name, New: newFeeds}},
}

type feeds struct{ pubsub *pubsub.PubSub }

var _ processor.Component = (*feeds)(nil)

func newFeeds(env plugins.Env, _ plugins.Config) (plugins.Component, error) {
	p, err := plugins.Need[*pubsub.PubSub](env, pubsub.Name)
	return &feeds{p}, err
}

// Start implements plugins.Component.
func (*feeds) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (*feeds) Stop(context.Context) error { return nil }

// Register implements processor.Component.
func (f *feeds) Register(r *processor.Registrar) {
	r.AccountFeature(typeBase, typeMicroblog, typeGallery, typeStories)
	pubsub.Profiles(r, profiles()...)
	processor.On(r, pubsub.Settling, processor.Normal, f.comments)
	processor.On(r, pubsub.Describing, processor.Normal, func(_ context.Context, d *pubsub.Description) (processor.Verdict, error) {
		if d.Node == nil { // XEP-0472 §3
			d.AddFeature(typeBase, typeGallery)
		}
		return processor.Continue, nil
	})
}

// comments lets a node of comments go with the microblog that it stands beside,
// unless its creator has said what it belongs to (XEP-0496 §6). It is no child:
// who may comment need not be one who may post.
func (f *feeds) comments(ctx context.Context, e *pubsub.Settlement) (processor.Verdict, error) {
	s := e.Settings
	if e.Before != nil || s.Type != typeComments || !e.PEP() || e.By.Bare() != e.Service || s.Link() != "" || s.Parent() != "" {
		return processor.Continue, nil
	}
	blog, err := f.pubsub.Node(ctx, pubsub.Address{Service: e.Service, Node: typeMicroblog})
	if blog != nil {
		s.SetLink(blog.Node)
	}
	return processor.Continue, err
}
