package archive

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	stored    *prometheus.CounterVec
	full      prometheus.Counter
	resent    prometheus.Counter
	replayed  prometheus.Counter
	freed     prometheus.Counter
	queries   *prometheus.CounterVec
	seconds   prometheus.Histogram
	expired   prometheus.Counter
	indexed   prometheus.Counter
	retracted prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_archive_" + name + "_total", Help: help})
	}
	m := &metrics{
		stored:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_archive_stored_total", Help: "Messages stored, by side: sent, received or room."}, []string{"side"}),
		full:      counter("full", "Messages refused because too many wait for their recipient."),
		resent:    counter("resent", "Messages sent again that were stored already."),
		replayed:  counter("replayed", "Messages that had waited and were delivered."),
		freed:     counter("freed", "Messages that a device has taken."),
		queries:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_archive_queries_total", Help: "Archive queries, by outcome: ok, refused, failed."}, []string{"outcome"}),
		seconds:   prometheus.NewHistogram(prometheus.HistogramOpts{Name: "parley_archive_query_seconds", Help: "Time to read one page.", Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2}}),
		expired:   counter("expired", "Messages removed because of their age or the quota."),
		indexed:   counter("indexed", "Messages put into the index."),
		retracted: counter("retracted", "Messages replaced by a tombstone."),
	}
	for _, c := range []prometheus.Collector{m.stored, m.full, m.resent, m.replayed, m.freed, m.queries, m.seconds, m.expired, m.indexed, m.retracted} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("archive metrics: %w", err)
		}
	}
	return m, nil
}
