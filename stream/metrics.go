package stream

import (
	"fmt"
	"net"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	connections  prometheus.Gauge
	received     prometheus.Counter
	logins       *prometheus.CounterVec
	authFailures *prometheus.CounterVec
	streamErrors *prometheus.CounterVec
	overflows    prometheus.Counter
	panics       prometheus.Counter
	refused      *prometheus.CounterVec
	shed         *prometheus.CounterVec
	unreturned   prometheus.Counter
	gaps         prometheus.Counter
	drained      *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer, held func() float64) (*metrics, error) {
	m := &metrics{
		connections:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "parley_connections", Help: "Open connections."}),
		received:     prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_received_stanzas_total", Help: "Stanzas read from bound streams."}),
		logins:       prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_logins_total", Help: "Successful logins."}, []string{"mechanism"}),
		authFailures: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_login_failures_total", Help: "Failed logins."}, []string{"condition"}),
		streamErrors: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_stream_errors_total", Help: "Streams that the server ended with an error."}, []string{"condition"}),
		overflows:    prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_outbox_overflows_total", Help: "Clients cut off because they did not read."}),
		panics:       prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_stream_panics_total", Help: "Handlers of stream elements that panicked."}),
		refused:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_connections_refused_total", Help: "Connections that were turned away, by what there was none of."}, []string{"reason"}),
	}
	m.shed = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_sessions_shed_total", Help: "Sessions that were ended because memory was short: those away, those slow."}, []string{"which"})
	m.unreturned = prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_stanzas_unreturned_total", Help: "Stanzas for sessions that have ended which were not handed back, because too many were: those that are stored wait, others are lost."})
	m.gaps = prometheus.NewCounter(prometheus.CounterOpts{Name: "parley_session_gaps_total", Help: "Times a session has asked for what it had missed of a room."})
	m.drained = prometheus.NewCounterVec(prometheus.CounterOpts{Name: "parley_drained_sessions_total", Help: "Sessions of a node that drains: whose clients were told to go elsewhere, that were paused because their clients did not come, that ended."}, []string{"what"})
	for vec, values := range map[*prometheus.CounterVec][]string{m.refused: {"connections", "memory", "descriptors"}, m.shed: {"away", "slow"}} {
		for _, v := range values {
			vec.WithLabelValues(v) // 0 before the first: an alarm on its increase needs that
		}
	}
	buffered := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "parley_session_buffered_bytes", Help: "Bytes that sessions hold for their clients: not taken by the socket, not acknowledged."}, held)
	for _, c := range []prometheus.Collector{m.connections, m.received, m.logins, m.authFailures, m.streamErrors, m.overflows, m.panics, m.refused, m.shed, m.unreturned, m.gaps, m.drained, buffered} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("streamer metrics: %w", err)
		}
	}
	return m, nil
}

// noteAddress remembers where a door is open.
func (s *Server) noteAddress(door string, a net.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.addresses == nil {
		s.addresses = map[string]string{}
	}
	if a == nil {
		delete(s.addresses, door)
		return
	}
	s.addresses[door] = a.String()
}

// Addresses returns where the doors are open, by name.
func (s *Server) Addresses() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]string, len(s.addresses))
	for k, v := range s.addresses {
		out[k] = v
	}
	return out
}
