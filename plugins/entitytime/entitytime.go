// Package entitytime tells the server's time (XEP-0202).
package entitytime

import (
	"context"

	"parley/parser/stanza"
	"parley/plugins"
	"parley/processor"
)

// NS is the namespace of XEP-0202 §8.1.
const NS = "urn:xmpp:time"

// Plugin provides the component.
var Plugin = plugins.Plugin{
	Name:       "entitytime",
	Doc:        "Tells the server's time and time zone.",
	Components: []plugins.Maker{{Server: processor.Name, New: newClock}},
}

type clock struct{ env plugins.Env }

var _ processor.Component = clock{}

func newClock(env plugins.Env, _ plugins.Config) (plugins.Component, error) { return clock{env}, nil }

// Start implements plugins.Component.
func (clock) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (clock) Stop(context.Context) error { return nil }

// Register implements processor.Component.
func (c clock) Register(r *processor.Registrar) {
	r.Feature(NS) // XEP-0202 §4
	r.IQ(NS, "time", processor.Host, c.answer)
}

// Formats of XEP-0082 §3: dateTime in UTC, and the numeric time zone.
const (
	formatUTC  = "2006-01-02T15:04:05Z"
	formatZone = "-07:00"
)

// answer is XEP-0202 §2.
func (c clock) answer(_ context.Context, q *processor.IQ) (*stanza.Element, error) {
	if q.Set() {
		return nil, stanza.NewError(stanza.BadRequest, "the time cannot be set")
	}
	now := c.env.Clock.Now()
	return stanza.El(NS, "time").Add(
		stanza.El(NS, "tzo").AddText(now.Format(formatZone)),
		stanza.El(NS, "utc").AddText(now.UTC().Format(formatUTC)),
	), nil
}
