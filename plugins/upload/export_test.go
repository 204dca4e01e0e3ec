package upload

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"parley/plugins"
)

// sweeper is a service that does nothing but what goes on in the background.
func sweeper(h *plugins.Host, clock plugins.Clock) (*service, error) {
	c, _ := h.Contract(Name)
	of := c.(*Files)
	f := &Files{env: of.env, store: of.store, scanners: of.scanners}
	if clock != nil {
		f.env.Clock = clock
	}
	m, err := newSlotMetrics(prometheus.NewRegistry())
	return &service{Files: f, cfg: *defaults(), m: m}, err
}

// Sweep sweeps now.
func Sweep(ctx context.Context, h *plugins.Host) error {
	s, err := sweeper(h, nil)
	if err != nil {
		return err
	}
	return s.sweepOnce(ctx)
}

// Audit compares what is stored with what is known, at the clock's time.
func Audit(ctx context.Context, h *plugins.Host, clock plugins.Clock) error {
	s, err := sweeper(h, clock)
	if err != nil {
		return err
	}
	return s.auditOnce(ctx)
}
