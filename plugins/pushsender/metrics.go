package pushsender

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	sent    *prometheus.CounterVec
	waiting prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		sent: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "parley_pushsender_notices_total",
			Help: "Notices for outside push services by kind: sent, failed for now, postponed (too many, or not yet), gone (the registration has ended), off (that kind is not configured), refused (no such registration).",
		}, []string{"kind", "result"}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{Name: "parley_pushsender_waiting", Help: "Notices that wait for a worker."}),
	}
	for _, c := range []prometheus.Collector{m.sent, m.waiting} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("pushsender: %w", err)
		}
	}
	return m, nil
}
