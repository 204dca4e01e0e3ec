package cluster

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of one life; they go with it.
type metrics struct {
	reg prometheus.Registerer // nil: nobody looks
	all []prometheus.Collector
}

func newMetrics(reg prometheus.Registerer, m *Members) (*metrics, error) {
	out := &metrics{reg: reg}
	if reg == nil {
		return out, nil
	}
	for _, c := range []prometheus.Collector{
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "parley_cluster_members",
			Help: "Nodes that are alive, this one included."}, func() float64 { return float64(len(m.Live())) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "parley_cluster_lease_seconds",
			Help: "What is left of this node's lease until it is fenced; 0 when it is."}, func() float64 { return m.lease.left().Seconds() }),
	} {
		if err := reg.Register(c); err != nil {
			out.close()
			return nil, fmt.Errorf("cluster metrics: %w", err)
		}
		out.all = append(out.all, c)
	}
	return out, nil
}

func (m *metrics) close() {
	for _, c := range m.all {
		m.reg.Unregister(c)
	}
}
