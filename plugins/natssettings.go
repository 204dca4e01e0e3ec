package plugins

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"

	"github.com/nats-io/nkeys"

	"parley/plugins/config"
	"parley/router/channel/nats"
	"parley/router/channel/nats/embedded"
)

// NATSSettings are those of router/channel/nats.
type NATSSettings struct {
	URLs        []string         `yaml:"urls" doc:"NATS servers, nats://host:4222 or tls://host:4222; empty, and no embedded.listen: this node is alone."`
	User        string           `yaml:"user" doc:"This node's user, where the NATS servers ask for one."`
	Password    config.Secret    `yaml:"password" doc:"That user's password."`
	Credentials string           `yaml:"credentials" doc:"A file with a NATS user's credentials (a JWT and its key)."`
	CA          string           `yaml:"ca" doc:"PEM file with the authorities that the certificates of NATS servers (embedded: of other nodes) are checked by; empty: the system's."`
	Certificate string           `yaml:"certificate" doc:"PEM file with this node's certificate, where NATS asks for one."`
	Key         string           `yaml:"key" doc:"PEM file with its private key."`
	Prefix      string           `yaml:"prefix" doc:"First part of every subject; the same on all nodes of a cluster, another one for another cluster."`
	Embedded    EmbeddedSettings `yaml:"embedded" doc:"A NATS server inside each node instead of urls; they find each other. With ca, certificate and key they show each other certificates."`
}

// EmbeddedSettings are those of router/channel/nats/embedded.
type EmbeddedSettings struct {
	Listen    string        `yaml:"listen" doc:"host:port where other nodes' servers connect, for instance 10.0.0.1:6222; empty: there is none."`
	Advertise string        `yaml:"advertise" doc:"host:port that other nodes are told to use instead, where addresses are translated."`
	Routes    []string      `yaml:"routes" doc:"host:port of all nodes; this one's own may be among them, so that the list is the same everywhere."`
	Secret    config.Secret `yaml:"secret" doc:"What nodes show each other; the same on all. It is readable on the way unless there are certificates."`
}

// natsKey is the path of a key of NATSSettings.
func natsKey(key string) string { return "cluster.nats." + key }

// chosen is the key by which this node has others; empty: it is alone.
func (s NATSSettings) chosen() string {
	switch {
	case len(s.URLs) > 0:
		return "urls"
	case s.Embedded.Listen != "":
		return "embedded.listen"
	}
	return ""
}

// Validate implements config.Validator.
func (s *NATSSettings) Validate() error {
	e := s.Embedded
	switch {
	case (s.Certificate == "") != (s.Key == ""):
		return config.Key("certificate", "a certificate needs its key, and the other way round")
	case s.User == "" && !s.Password.IsZero():
		return config.Key("password", "there is no cluster.nats.user that it is for")
	case s.User != "" && s.Credentials != "":
		return config.Key("credentials", "cluster.nats.user says already who this node is: keep one of the two")
	case e.Listen == "" && (len(e.Routes) > 0 || e.Advertise != "" || !e.Secret.IsZero()):
		return config.Key("embedded.listen", "the embedded server needs an address for other nodes, host:port")
	case e.Listen == "":
		return nil
	case len(s.URLs) > 0:
		return config.Key("embedded.listen", "cluster.nats.urls names servers already: keep one of the two")
	case s.User != "" || s.Credentials != "":
		return config.Key("embedded.listen", "cluster.nats.user and credentials are for servers in cluster.nats.urls; nodes show each other embedded.secret, or certificates")
	case (s.CA == "") != (s.Certificate == ""):
		return config.Key("ca", "nodes that show each other certificates need ca, certificate and key")
	}
	var routes *tls.Config
	if s.CA != "" {
		routes = &tls.Config{MinVersion: tls.VersionTLS12} // what is in it shows when it is read
	}
	var wrong *embedded.FieldError
	if err := s.mesh(routes).Validate(); errors.As(err, &wrong) {
		return config.Key("embedded."+wrong.Field, "%w", wrong.Err)
	} else if err != nil {
		return err
	}
	return nil
}

// mesh is the embedded server's part.
func (s NATSSettings) mesh(routes *tls.Config) embedded.Options {
	e := s.Embedded
	return embedded.Options{Cluster: s.Prefix, Listen: e.Listen, Advertise: e.Advertise, Routes: e.Routes, Secret: e.Secret.Reveal(), TLS: routes}
}

// client is the client's part; it reads the files. Errors name the key.
func (s NATSSettings) client() (o nats.Options, err error) {
	o = nats.Options{URLs: s.URLs, Cluster: s.Prefix, User: s.User, Password: s.Password.Reveal(), Credentials: s.Credentials}
	if o.TLS, err = s.tls(); err != nil {
		return o, err
	}
	if s.Credentials == "" {
		return o, nil
	}
	text, err := os.ReadFile(s.Credentials)
	if err == nil {
		_, err = nkeys.ParseDecoratedJWT(text)
	}
	if err == nil {
		_, err = nkeys.ParseDecoratedNKey(text)
	}
	if err != nil {
		return o, fmt.Errorf("%s: %w", natsKey("credentials"), err)
	}
	return o, nil
}

// Files reports a file that is named and cannot be used. Errors name the key.
func (s NATSSettings) Files() error {
	_, err := s.client()
	return err
}

// Servers are the addresses of URLs, host:port.
func (s NATSSettings) Servers() (out []string) {
	for _, text := range s.URLs {
		if !strings.Contains(text, "://") {
			text = "nats://" + text
		}
		u, err := url.Parse(text)
		if err != nil {
			continue // dialling says so
		}
		out = append(out, net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "4222")))
	}
	return out
}

// tls is nil when nothing of it is configured.
func (s NATSSettings) tls() (*tls.Config, error) {
	if s.CA == "" && s.Certificate == "" {
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if s.CA != "" {
		pem, err := os.ReadFile(s.CA)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", natsKey("ca"), err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: %s has no certificate", natsKey("ca"), s.CA)
		}
	}
	if s.Certificate != "" {
		pair, err := tls.LoadX509KeyPair(s.Certificate, s.Key)
		if err != nil {
			return nil, fmt.Errorf("%s and %s: %w", natsKey("certificate"), natsKey("key"), err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// explain adds where to look when a NATS server and this node do not come together.
func (s NATSSettings) explain(err error) error {
	who := "cluster.nats.user, password or credentials"
	switch {
	case s.Credentials != "":
		who = natsKey("credentials")
	case s.User != "":
		who = "cluster.nats.user and password"
	case s.Certificate != "":
		who = "whether a user of the NATS server is the one that cluster.nats.certificate names"
	}
	for _, reason := range []struct {
		err  error
		look string
	}{
		{nats.ErrTrust, "cluster.nats.ca has to hold its authority, and cluster.nats.urls a name that is in the certificate"},
		{nats.ErrCertificate, "see cluster.nats.certificate and key"},
		{nats.ErrNoTLS, "cluster.nats.urls has tls://, or cluster.nats.ca or certificate is set"},
		{nats.ErrCredentials, "see " + who},
		{nats.ErrPermission, "a node publishes to PREFIX.*.NODE.> and subscribes to PREFIX.NODE.> (cluster.nats.prefix, node)"},
	} {
		if errors.Is(err, reason.err) {
			return fmt.Errorf("%w (%s)", err, reason.look)
		}
	}
	return err
}

// named puts the whole key before what is wrong with one of the embedded server's.
func named(err error) error {
	var wrong *embedded.FieldError
	if errors.As(err, &wrong) {
		return fmt.Errorf("%s: %w", natsKey("embedded."+wrong.Field), wrong.Err)
	}
	return err
}
