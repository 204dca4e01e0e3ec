// Package embedded runs a NATS server inside the process. The servers of all nodes
// join to a mesh by routes, so that a cluster needs none beside it.
//
// It is core NATS, for the nodes alone: no JetStream, no monitoring. The process's
// own client connects without a socket (InProcessConn) and is the only one; other
// nodes connect to Listen as routes, and show a secret or a certificate. Each
// pair has one connection. Whoever knows one node learns of the others, but a node
// that restarts finds those alone that its Routes name, so they name them all.
//
// A peer that stands still is noticed by pings (PingInterval × PingsMissed), and by
// writes that do not go through (writeDeadline); the defaults take minutes. What is
// lost with a route comes again, by the pipes in router/channel/nats.
package embedded

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/prometheus/client_golang/prometheus"
)

// Options make a server.
type Options struct {
	Cluster   string      // the same on all nodes; who says another is sent away
	Listen    string      // host:port for the routes of other nodes; port 0: any, for tests
	Advertise string      // host:port that others are told to find it at; empty: where its connections come from, and Listen's port
	Routes    []string    // host:port of the other nodes; this one's own may be among them
	Secret    string      // what nodes show each other; empty: nothing
	TLS       *tls.Config // for both ends of routes: a certificate, and the authorities of the others'; nil: routes are open to read
	Log       *slog.Logger
	Metrics   prometheus.Registerer // nil: nobody looks
}

// FieldError says which of the Options is wrong, by its name in small letters.
type FieldError struct {
	Field string
	Err   error
}

// Error implements error.
func (e *FieldError) Error() string { return e.Field + ": " + e.Err.Error() }

// Unwrap returns what is wrong.
func (e *FieldError) Unwrap() error { return e.Err }

func field(name, format string, args ...any) error {
	return &FieldError{name, fmt.Errorf(format, args...)}
}

// ErrOpen says that anybody could join.
var ErrOpen = errors.New("a node that others reach over a network needs a secret, or TLS with a certificate of each node")

// Validate returns what is wrong, as *FieldError. Whether TLS is nil counts, not
// what is in it.
func (o Options) Validate() error {
	host, _, err := address(o.Listen)
	if err != nil {
		return &FieldError{"listen", err}
	}
	if o.Advertise != "" {
		if h, _, err := address(o.Advertise); err != nil || h == "" {
			return field("advertise", "%q is not host:port", o.Advertise)
		}
	}
	for _, r := range o.Routes {
		if h, port, err := address(r); err != nil || h == "" || port == 0 {
			return field("routes", "%q is not host:port", r)
		}
	}
	if ip := net.ParseIP(host); o.Secret == "" && o.TLS == nil && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return &FieldError{"secret", fmt.Errorf("%s is not a loopback address: %w", o.Listen, ErrOpen)}
	}
	return nil
}

// address reads host:port; the host may be empty.
func address(s string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(s)
	if err == nil {
		port, err = strconv.Atoi(text)
	}
	if err != nil || port < 0 || port > 65535 {
		return "", 0, fmt.Errorf("%q is not host:port", s)
	}
	return host, port, nil
}

// Server is a running one.
type Server struct {
	nats    *server.Server
	routes  prometheus.Collector
	metrics prometheus.Registerer
}

// Start returns when other nodes can connect. Errors wrap *FieldError when one of
// the options is to blame.
func Start(ctx context.Context, o Options) (*Server, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("embedded NATS: %w", err)
	}
	n, err := server.NewServer(settings(o))
	if err != nil {
		return nil, fmt.Errorf("embedded NATS: %w", err)
	}
	log := newLogger(o.Log)
	n.SetLoggerV2(log, false, false, false)
	n.Start()
	s := &Server{nats: n, metrics: o.Metrics}
	if err := s.ready(ctx, log.fatal); err != nil {
		s.Close()
		return nil, fmt.Errorf("embedded NATS: %w", &FieldError{"listen", err})
	}
	if o.Metrics != nil {
		s.routes = prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "parley_mesh_routes", Help: "Connections of this node's embedded NATS server to those of other nodes."},
			func() float64 { return float64(n.NumRoutes()) })
		if err := o.Metrics.Register(s.routes); err != nil {
			s.routes = nil
			s.Close()
			return nil, fmt.Errorf("embedded NATS: metrics: %w", err)
		}
	}
	return s, nil
}

const (
	readyWithin = 10 * time.Second
	readyEvery  = 50 * time.Millisecond
)

// ready waits until the server accepts routes, or has said why it does not.
func (s *Server) ready(ctx context.Context, fatal <-chan string) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	for !s.nats.ReadyForConnections(readyEvery) {
		select {
		case why := <-fatal:
			return errors.New(why)
		case <-ctx.Done():
			return fmt.Errorf("the server does not start: %w", ctx.Err())
		default:
		}
	}
	return nil
}

// Addr is where the server accepts routes.
func (s *Server) Addr() string { return s.nats.ClusterAddr().String() }

// Routes is how many connections to other nodes there are.
func (s *Server) Routes() int { return s.nats.NumRoutes() }

// InProcessConn connects this process's client.
func (s *Server) InProcessConn() (net.Conn, error) { return s.nats.InProcessConn() }

// Close ends it and returns when nothing of it runs any more.
func (s *Server) Close() {
	if s.routes != nil {
		s.metrics.Unregister(s.routes)
	}
	s.nats.Shutdown()
	s.nats.WaitForShutdown()
}

// How patient servers are with each other and with the process's client. The
// defaults notice a frozen peer after minutes.
const (
	PingInterval  = 2 * time.Second
	PingsMissed   = 2
	writeDeadline = 2 * time.Second
	// tries is how often a node is looked for that others have told of; those that
	// are configured are looked for as long as the process lives.
	tries = 600
	// reports: of so many times in a row that a node is not found, one is logged.
	reports = 60
	// user is what all nodes call themselves; the secret is what counts.
	user = "parley"
)

func settings(o Options) *server.Options {
	host, port, _ := net.SplitHostPort(o.Listen)
	n, _ := strconv.Atoi(port)
	if n == 0 {
		n = server.RANDOM_PORT
	}
	out := &server.Options{
		// A server that does not listen for clients at all has no routes either
		// (nats-server 2.15 waits for that before it begins them).
		Host: "127.0.0.1", Port: server.RANDOM_PORT, CustomClientAuthentication: insideOnly{},
		NoSigs: true, NoSystemAccount: true, ConnectErrorReports: reports, ReconnectErrorReports: reports,
		PingInterval: PingInterval, MaxPingsOut: PingsMissed, WriteDeadline: writeDeadline,
		Cluster: server.ClusterOpts{
			Name: o.Cluster, Host: cmp.Or(host, "0.0.0.0"), Port: n, Advertise: o.Advertise, NoAdvertise: true, // to clients
			PoolSize: 1, ConnectRetries: tries, Compression: server.CompressionOpts{Mode: server.CompressionOff},
			PingInterval: PingInterval, MaxPingsOut: PingsMissed, WriteDeadline: writeDeadline, TLSConfig: routeTLS(o.TLS),
		},
	}
	if o.Secret != "" {
		out.Cluster.Username, out.Cluster.Password = user, o.Secret
	}
	for _, r := range o.Routes {
		u := &url.URL{Scheme: "nats-route", Host: r}
		if o.Secret != "" {
			u.User = url.UserPassword(user, o.Secret)
		}
		out.Routes = append(out.Routes, u)
	}
	return out
}

// insideOnly lets nobody in who comes by a socket.
type insideOnly struct{}

// Check implements server.Authentication.
func (insideOnly) Check(c server.ClientAuthentication) bool {
	a := c.RemoteAddress()
	return a != nil && a.Network() == "pipe"
}

// routeTLS makes both ends of a route show a certificate of the same authorities.
func routeTLS(c *tls.Config) *tls.Config {
	if c == nil {
		return nil
	}
	c = c.Clone()
	c.ClientCAs, c.ClientAuth = c.RootCAs, tls.RequireAndVerifyClientCert
	return c
}
