package upload

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// slotMetrics are the service's.
type slotMetrics struct {
	slots *prometheus.CounterVec
	swept *prometheus.CounterVec
	lost  prometheus.Gauge
}

func newSlotMetrics(reg prometheus.Registerer) (*slotMetrics, error) {
	m := &slotMetrics{
		slots: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_upload_slots_total", Help: "Slots that were asked for, by what came of it: given, failed, or why not."}, []string{"outcome"}),
		swept: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_upload_swept_total", Help: "What was removed: slots, files, contents that no file has any more, objects that nobody knows."}, []string{"what"}),
		lost:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "parley_upload_missing", Help: "Contents that the last audit did not find in the store."}),
	}
	return m, register(reg, m.slots, m.swept, m.lost)
}

// doorMetrics are the door's.
type doorMetrics struct {
	requests *prometheus.CounterVec
	bytes    *prometheus.CounterVec
}

func newDoorMetrics(reg prometheus.Registerer) (*doorMetrics, error) {
	m := &doorMetrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_upload_requests_total", Help: "HTTP requests for files, by outcome: ok, refused, full, failed."}, []string{"method", "outcome"}),
		bytes:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_upload_bytes_total", Help: "Bytes of files that came in and went out."}, []string{"direction"}),
	}
	return m, register(reg, m.requests, m.bytes)
}

func register(reg prometheus.Registerer, all ...prometheus.Collector) error {
	for _, c := range all {
		if err := reg.Register(c); err != nil {
			return fmt.Errorf("upload metrics: %w", err)
		}
	}
	return nil
}
