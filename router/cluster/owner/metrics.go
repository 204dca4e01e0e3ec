package owner

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics go with their Service.
type metrics struct {
	reg prometheus.Registerer // nil: nobody looks
	all []prometheus.Collector

	taken, refused, lost, moved prometheus.Counter
	calls                       *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer, s *Service) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &metrics{
		reg:     reg,
		taken:   counter("parley_owner_acquisitions_total", "Keys that this node has become the owner of."),
		refused: counter("parley_owner_refusals_total", "Keys that this node wanted and another one owned."),
		lost:    counter("parley_owner_losses_total", "Keys that this node has given away or lost."),
		moved:   counter("parley_owner_retries_total", "Work that had to look for its owner once more."),
		calls:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_owner_calls_total", Help: "Work that another node was asked to do, by what became of it."}, []string{"outcome"}),
	}
	if reg == nil {
		return m, nil
	}
	keys := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "parley_owner_keys", Help: "Keys that this node owns."}, func() float64 {
		s.mu.Lock()
		defer s.mu.Unlock()
		return float64(len(s.holds))
	})
	for _, c := range []prometheus.Collector{keys, m.taken, m.refused, m.lost, m.moved, m.calls} {
		if err := reg.Register(c); err != nil {
			m.close()
			return nil, fmt.Errorf("owner metrics: %w", err)
		}
		m.all = append(m.all, c)
	}
	return m, nil
}

func (m *metrics) close() {
	for _, c := range m.all {
		m.reg.Unregister(c)
	}
}
