package usersearch

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct{ searches *prometheus.CounterVec }

func newMetrics(reg prometheus.Registerer) (*metrics, error) {
	m := &metrics{prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_user_searches_total", Help: "Searches in the user directories, by what came of them: answered, failed, or why not."}, []string{"outcome"})}
	if err := reg.Register(m.searches); err != nil {
		return nil, fmt.Errorf("user search metrics: %w", err)
	}
	return m, nil
}
