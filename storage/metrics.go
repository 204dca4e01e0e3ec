package storage

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics of one open database; unregistered when it closes.
type metrics struct {
	reg  prometheus.Registerer // nil: nobody looks
	all  []prometheus.Collector
	sets prometheus.Histogram
	rows prometheus.Histogram

	seconds  prometheus.Histogram
	commits  prometheus.Counter
	failures prometheus.Counter
	retries  prometheus.Counter
	walPages prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	sizes := []float64{1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 4096}
	m := &metrics{
		reg: reg,
		sets: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "parley_storage_commit_sets",
			Help: "Write sets per commit.", Buckets: sizes}),
		rows: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "parley_storage_commit_rows",
			Help: "Rows per commit.", Buckets: sizes}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "parley_storage_commit_seconds",
			Help: "Time of a group commit, with its retries.", Buckets: prometheus.ExponentialBuckets(0.0002, 2, 16)}),
		commits: prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_storage_commits_total",
			Help: "Group commits that succeeded."}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_storage_failed_sets_total",
			Help: "Write sets that were refused."}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_storage_retries_total",
			Help: "Transactions repeated after a lost connection, a deadlock or a serialisation failure."}),
		walPages: prometheus.NewGauge(prometheus.GaugeOpts{Name: "parley_storage_wal_pages",
			Help: "SQLite: pages in the write-ahead log at the last checkpoint."}),
	}
	m.register(m.sets, m.rows, m.seconds, m.commits, m.failures, m.retries, m.walPages)
	return m
}

// register ignores a second database on the same registry: its numbers are not
// shown, which is better than a server that does not start.
func (m *metrics) register(cs ...prometheus.Collector) {
	if m.reg == nil {
		return
	}
	for _, c := range cs {
		if m.reg.Register(c) == nil {
			m.all = append(m.all, c)
		}
	}
}

func (m *metrics) watchQueue(depth func() float64) {
	m.register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "parley_storage_queue_sets",
		Help: "Write sets that wait for their commit."}, depth))
}

func (m *metrics) committed(sets []*submission) {
	rows := 0
	for _, s := range sets {
		rows += s.set.Len()
	}
	m.commits.Inc()
	m.sets.Observe(float64(len(sets)))
	m.rows.Observe(float64(rows))
}

func (m *metrics) close() {
	for _, c := range m.all {
		m.reg.Unregister(c)
	}
}
