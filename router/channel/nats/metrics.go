package nats

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics reads the pipes when somebody looks; so Send pays nothing, and the series
// of a peer go with it.
type metrics struct{ b *Bus }

var _ prometheus.Collector = metrics{}

type series struct {
	name, help string
	kind       prometheus.ValueType
}

func (m series) desc() *prometheus.Desc {
	return prometheus.NewDesc(m.name, m.help, []string{"peer", "port"}, nil)
}

func all() [6]series {
	return [...]series{
		{"parley_lane_in_flight", "Payloads that a peer has not acknowledged.", prometheus.GaugeValue},
		{"parley_lane_in_flight_bytes", "Bytes of them.", prometheus.GaugeValue},
		{"parley_lane_window", "Payloads that may be in flight.", prometheus.GaugeValue},
		{"parley_lane_oldest_seconds", "Age of the oldest of them.", prometheus.GaugeValue},
		{"parley_lane_retries_total", "Payloads that were sent once more.", prometheus.CounterValue},
		{"parley_lane_stalled_total", "Times that a peer stopped acknowledging.", prometheus.CounterValue},
	}
}

// Describe implements prometheus.Collector.
func (m metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, s := range all() {
		ch <- s.desc()
	}
}

// Collect implements prometheus.Collector.
func (m metrics) Collect(ch chan<- prometheus.Metric) {
	now := time.Now()
	descs := all()
	for _, s := range m.b.senders(nil) {
		l := s.lane(now)
		for i, v := range [...]float64{float64(l.InFlight), float64(l.Bytes), float64(l.Window.Frames), l.Oldest.Seconds(), float64(l.Retries), float64(l.Stalls)} {
			ch <- prometheus.MustNewConstMetric(descs[i].desc(), descs[i].kind, v, s.to.Node, s.port)
		}
	}
}
