package bytestreams

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	streams prometheus.Gauge
	waiting prometheus.Gauge
	bytes   prometheus.Counter
	refused *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		streams: prometheus.NewGauge(prometheus.GaugeOpts{Name: "parley_bytestreams_streams", Help: "Bytestreams that are relayed."}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{Name: "parley_bytestreams_waiting", Help: "Connections that wait for their bytestream."}),
		bytes:   prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_bytestreams_bytes_total", Help: "Bytes that were relayed."}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_bytestreams_refused_total", Help: "Connections that were closed: no room, not what a bytestream begins with, never activated, more bytes than one may carry."}, []string{"why"}),
	}
	for _, c := range []prometheus.Collector{m.streams, m.waiting, m.bytes, m.refused} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("bytestreams metrics: %w", err)
		}
	}
	return m, nil
}
