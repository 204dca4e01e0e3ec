// Package message is what is left of RFC 6121 §8.5 when the router has found
// the recipients and the archive has stored what lasts: what nobody misses is
// dropped without an answer, and what only an account's own server may say is
// taken out of what others say.
//
// Specs: RFC 6121 §8.5.2.2.1 with XEP-0085 §5.6 (typing to somebody who is
// away), XEP-0280 §11 and XEP-0313 §8.2 (forged carbons and archive results,
// CVE-2017-5589). What a message is at all stands in plugins/message/kinds.
package message

import (
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/message/kinds"
	"parley/processor"
)

// Plugin provides the rules.
var Plugin = plugins.Plugin{
	Name:       "message",
	Doc:        "Keeps forged copies away from clients, and drops typing notifications for those who are away.",
	Components: []plugins.Maker{{Server: processor.Name, New: newPart}},
}

type part struct{ dropped *prometheus.CounterVec }

var _ processor.Component = part{}

func newPart(env plugins.Env, _ plugins.Config) (plugins.Component, error) {
	p := part{prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_messages_dropped_total", Help: "Messages dropped without an answer, by reason: forged, fleeting."}, []string{"reason"})}
	if err := env.Metrics.Register(p.dropped); err != nil {
		return nil, fmt.Errorf("message metrics: %w", err)
	}
	return p, nil
}

// Start implements plugins.Component.
func (part) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (part) Stop(context.Context) error { return nil }

// Register implements processor.Component.
func (p part) Register(r *processor.Registrar) {
	processor.On(r, processor.Incoming, processor.Early, p.incoming)
}

func (p part) incoming(_ context.Context, f *processor.Flow) (processor.Verdict, error) {
	if f.Kind != stanza.Message {
		return processor.Continue, nil
	}
	if p.forged(f) {
		p.dropped.WithLabelValues("forged").Inc()
		return processor.Stop, nil
	}
	if f.Fails != nil && f.Keep && kinds.Of(f.Stanza).Fleeting() {
		p.dropped.WithLabelValues("fleeting").Inc()
		return processor.Stop, nil
	}
	return processor.Continue, nil
}

// forged takes out what pretends to come from the recipient's own server: the
// server's own copies do not pass here. It reports whether nothing is left.
func (p part) forged(f *processor.Flow) bool {
	cut := 0
	for _, c := range f.Children {
		if kinds.IsWrapper(c.Name) {
			f.Cut(c)
			cut++
		}
	}
	return cut > 0 && cut == len(f.Children)
}
