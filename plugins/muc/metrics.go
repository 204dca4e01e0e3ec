package muc

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	messages prometheus.Counter
	resent   prometheus.Counter
	sent     prometheus.Counter
	entries  prometheus.Counter
	refused  *prometheus.CounterVec
	ghosts   prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, rooms *memory) (*metrics, error) {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_muc_" + name + "_total", Help: help})
	}
	m := &metrics{
		messages: counter("messages", "Messages that rooms have taken."),
		resent:   counter("resent", "Messages that rooms had already, sent again by clients that could not know."),
		sent:     counter("sent", "Stanzas that rooms have sent."),
		entries:  counter("entries", "Sessions that have entered rooms."),
		refused:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_muc_refused_total", Help: "Stanzas that rooms have refused because of a limit, by which one."}, []string{"limit"}),
		ghosts:   counter("ghosts", "Occupants that were removed because their session was gone."),
	}
	for _, c := range []prometheus.Collector{
		m.messages, m.resent, m.sent, m.entries, m.refused, m.ghosts,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "parley_muc_rooms", Help: "Rooms that this node has in memory."}, func() float64 { n, _ := rooms.count(); return n }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "parley_muc_occupants", Help: "Sessions in the rooms that this node has in memory."}, func() float64 { _, n := rooms.count(); return n }),
	} {
		if err := reg.Register(c); err != nil {
			return nil, fmt.Errorf("muc metrics: %w", err)
		}
	}
	return m, nil
}
