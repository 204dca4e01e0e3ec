// Package session answers clients that still establish a session after
// binding, as RFC 3921 §3 wanted it. RFC 6120 has no such step: it does
// nothing, and is announced as optional (draft-cridland-xmpp-session-01).
//
// One component of it is in the streamer and announces the feature, the other
// is in the processor and answers the request.
package session

import (
	"context"

	"parley/parser/stanza"
	"parley/plugins"
	"parley/processor"
	"parley/stream"
)

// Name is the plugin's name in configurations.
const Name = "session"

// Plugin provides the feature.
var Plugin = plugins.Plugin{
	Name: Name,
	Doc:  "Lets clients of RFC 3921 establish their session, which does nothing.",
	Components: []plugins.Maker{
		{Server: stream.Name, New: func(plugins.Env, plugins.Config) (plugins.Component, error) { return announcer{}, nil }},
		{Server: processor.Name, New: func(plugins.Env, plugins.Config) (plugins.Component, error) { return answerer{}, nil }},
	},
}

// behindBind is the feature's place among the others.
const behindBind = 65

// still is a component with nothing to start or stop.
type still struct{}

// Start implements plugins.Component.
func (still) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (still) Stop(context.Context) error { return nil }

type announcer struct{ still }

var _ stream.Component = announcer{}

// Register implements stream.Component.
func (announcer) Register(r *stream.Registrar) {
	r.StreamFeature(stream.Feature{In: stream.Authenticated, Order: behindBind, Advertise: func(*stream.Conn) *stanza.Element {
		return stanza.El(stanza.NSSession, "session").Add(stanza.El(stanza.NSSession, "optional"))
	}})
}

type answerer struct{ still }

var _ processor.Component = answerer{}

// Register implements processor.Component.
func (answerer) Register(r *processor.Registrar) {
	r.IQ(stanza.NSSession, "session", processor.Host|processor.Self, func(_ context.Context, q *processor.IQ) (*stanza.Element, error) {
		if !q.Set() {
			return nil, stanza.NewError(stanza.BadRequest, "")
		}
		return nil, nil
	})
}
