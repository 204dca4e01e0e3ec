package s2s

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	streams  *prometheus.GaugeVec
	waiting  prometheus.Gauge
	bounced  *prometheus.CounterVec
	connects *prometheus.CounterVec
	proofs   *prometheus.CounterVec
}

func newMetrics() *metrics {
	m := &metrics{
		streams:  prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "parley_s2s_streams", Help: "Streams with other servers that are authenticated."}, []string{"direction"}),
		waiting:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "parley_s2s_waiting_stanzas", Help: "Stanzas that wait for other servers."}),
		bounced:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_s2s_bounced_total", Help: "Stanzas for other servers that were refused, by the error."}, []string{"condition"}),
		connects: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_s2s_connects_total", Help: "Tries to reach another server, by what came of them."}, []string{"outcome"}),
		proofs:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_s2s_authentications_total", Help: "Pairs of domains that were proven or were not, by direction and method."}, []string{"direction", "method", "outcome"}),
	}
	for _, d := range []string{"in", "out"} {
		m.streams.WithLabelValues(d)
	}
	return m
}

func (m *metrics) register(r prometheus.Registerer) error {
	for _, c := range []prometheus.Collector{m.streams, m.waiting, m.bounced, m.connects, m.proofs} {
		if err := r.Register(c); err != nil {
			return fmt.Errorf("federation metrics: %w", err)
		}
	}
	return nil
}
