package stream

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/config"
)

// Config is the Server's section.
type Config struct {
	C2S    string `yaml:"c2s" reload:"restart" doc:"Address for clients over TCP with STARTTLS; empty: none."`
	C2STLS string `yaml:"c2s_tls" reload:"restart" doc:"Address for clients over direct TLS (XEP-0368); empty: none."`
	HTTP   string `yaml:"http" reload:"restart" doc:"Address for HTTP without TLS (WebSocket, discovery, health, metrics); empty: none."`
	HTTPS  string `yaml:"https" reload:"restart" doc:"Address for HTTPS; empty: none."`

	ALPN bool `yaml:"https_xmpp" reload:"restart" doc:"Clients may speak XMPP at the HTTPS door too: those that ask for xmpp-client by ALPN (XEP-0368), for networks that let port 443 alone pass."`

	ProxyProtocol []netip.Prefix `yaml:"proxy_protocol" reload:"restart" doc:"Networks of proxies in front of the doors for clients (c2s, c2s_tls, http, https) that say by the PROXY protocol (version 1 or 2) who is behind them, like 10.0.0.5/32. From these a header must come; from others none is read. Empty: none."`

	TLS         TLS                `yaml:"tls" doc:"Certificates and what is allowed without encryption."`
	Limits      Limits             `yaml:"limits" doc:"What one stream may cost, enforced while reading (RFC 6120 §13.12)."`
	Rate        Rate               `yaml:"rate" doc:"How fast one session may send, and all of an account or an address together; beyond it their reading slows down."`
	Timeouts    Timeouts           `yaml:"timeouts" doc:"How long the server waits."`
	Connections Connections        `yaml:"connections" doc:"How many connections there may be."`
	Outbox      config.Size        `yaml:"outbox" min:"65536" reload:"restart" doc:"Bytes that may wait for a client that does not read. Beyond it the client is detached, or closed when it has no stream management."`
	Resumption  Resumption         `yaml:"resumption" doc:"Stream management (XEP-0198)."`
	Deployment  plugins.Deployment `yaml:"deployment" reload:"restart" doc:"How the Server is joined to the others."`
}

// Validate implements what package config asks of a section.
func (c *Config) Validate() error {
	for _, d := range []struct{ key, address string }{{"c2s", c.C2S}, {"c2s_tls", c.C2STLS}, {"http", c.HTTP}, {"https", c.HTTPS}} {
		if err := listenable(d.address); err != nil {
			return config.Key(d.key, "%w", err)
		}
	}
	return nil
}

// listenable reports what is wrong with an address to listen on; "": nothing
// listens.
func listenable(address string) error {
	if address == "" {
		return nil
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is no address: HOST:PORT, or :PORT for all addresses of this machine", address)
	}
	if _, err := net.LookupPort("tcp", port); err != nil {
		return fmt.Errorf("%q is no address: the port is a number from 0 to 65535", address)
	}
	return nil
}

// TLS configures certificates.
type TLS struct {
	Certificate string   `yaml:"certificate" reload:"restart" doc:"PEM file with the certificate chain; read again when it changes. Empty: ACME if configured, else a self-signed one is made in the data directory."`
	Key         string   `yaml:"key" reload:"restart" doc:"PEM file with the private key."`
	Required    bool     `yaml:"required" reload:"restart" doc:"Clients must encrypt before they log in."`
	Loopback    bool     `yaml:"plain_on_loopback" reload:"restart" doc:"Connections from this machine may log in without TLS, with passwords in the clear. For test suites and load generators."`
	ACME        ACME     `yaml:"acme" doc:"Certificates from an ACME authority, renewed by themselves."`
	ExtraNames  []string `yaml:"extra_names" reload:"restart" doc:"Further host names for the self-signed or ACME certificate, besides the domains."`

	Directory string `yaml:"directory" reload:"restart" doc:"Directory in which certificates of domains are looked for, also of those that are added at run time: DOMAIN.crt and DOMAIN.key, or DOMAIN/fullchain.pem and DOMAIN/privkey.pem. Empty: none."`

	Domains map[string]CertificateFiles `yaml:"domains" reload:"restart" doc:"Certificates of some domains alone, by domain, for it and what is below it; *.example.org: for what is below that alone. The nearest one counts, and the above is for all others. Which domain a client means it says by SNI, or else in its stream header."`
}

// CertificateFiles are a certificate and its key.
type CertificateFiles struct {
	Certificate string `yaml:"certificate" reload:"restart" doc:"PEM file with the certificate chain; read again when it changes."`
	Key         string `yaml:"key" reload:"restart" doc:"PEM file with the private key."`
}

// Validate implements what package config asks of a section.
func (f *CertificateFiles) Validate() error {
	switch {
	case f.Certificate == "":
		return config.Key("certificate", "name the file with the certificate")
	case f.Key == "":
		return config.Key("key", "name the file with the key")
	}
	return nil
}

// Validate implements what package config asks of a section.
func (t *TLS) Validate() error {
	switch {
	case t.Certificate != "" && t.Key == "":
		return config.Key("certificate", "a certificate needs its key: set key as well")
	case t.Certificate == "" && t.Key != "":
		return config.Key("key", "a key needs its certificate: set certificate as well")
	}
	if err := listenable(t.ACME.HTTP); err != nil {
		return config.Key("acme.http", "%w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(t.Domains)) {
		j, err := jid.Parse(strings.TrimPrefix(name, "*."))
		if err != nil || !j.IsDomain() {
			return config.Key(fmt.Sprintf("domains.%q", name), "%q is not a domain, and not *.DOMAIN", name)
		}
	}
	return nil
}

// ACME configures the authority.
type ACME struct {
	Enabled   bool   `yaml:"enabled" reload:"restart" doc:"Get certificates for all domains. Port 80 or 443 of this machine must be reachable under their names."`
	Email     string `yaml:"email" reload:"restart" doc:"Where the authority writes when something is wrong."`
	Directory string `yaml:"directory" reload:"restart" doc:"The authority's directory URL; empty: Let's Encrypt."`
	HTTP      string `yaml:"http" reload:"restart" doc:"Address on which HTTP challenges are answered."`
}

// Limits bound one stream.
type Limits struct {
	Stanza        config.Size `yaml:"stanza" min:"10000" reload:"restart" doc:"Largest stanza of a logged-in client; never below 10000 bytes (RFC 6120 §13.12)."`
	PreAuth       config.Size `yaml:"pre_auth" min:"4096" reload:"restart" doc:"Largest element before login."`
	Depth         int         `yaml:"depth" min:"8" max:"1000" reload:"restart" doc:"Nesting of elements."`
	Attributes    int         `yaml:"attributes" min:"8" max:"1000" reload:"restart" doc:"Attributes of one element."`
	AuthTries     int         `yaml:"auth_tries" min:"2" max:"10" reload:"restart" doc:"Failed logins on one stream before it is closed (RFC 6120 §6.4.5)."`
	ResourceTries int         `yaml:"resource_tries" min:"1" max:"20" reload:"restart" doc:"Failed attempts to bind a resource before the stream is closed (RFC 6120 §7.7.3)."`
}

// Rate bounds what one session sends, one account and one address.
type Rate struct {
	Bytes   config.Size `yaml:"bytes" reload:"restart" doc:"Bytes per second; 0: no limit."`
	Stanzas int         `yaml:"stanzas" min:"0" reload:"restart" doc:"Stanzas per second; 0: no limit."`
	Burst   int         `yaml:"burst" min:"1" reload:"restart" doc:"Seconds' worth that may come at once."`

	Account  int           `yaml:"account" min:"0" reload:"restart" doc:"How many sessions' worth all sessions of one account may send together; 0: no limit."`
	Address  int           `yaml:"address" min:"0" reload:"restart" doc:"How many sessions' worth may come from one address (IPv6: one /64). Loopback is not counted; 0: no limit."`
	Patience time.Duration `yaml:"patience" min:"0s" reload:"restart" doc:"Who has been slowed down for so long, without a second's rest, is disconnected; 0s: nobody is."`
}

// Timeouts say how long the server waits.
type Timeouts struct {
	Handshake time.Duration `yaml:"handshake" reload:"restart" doc:"For a TLS handshake."`
	Login     time.Duration `yaml:"login" reload:"restart" doc:"From connecting to being bound."`
	Element   time.Duration `yaml:"element" reload:"restart" doc:"For the rest of an element that has begun."`
	Close     time.Duration `yaml:"close" reload:"restart" doc:"For the peer's end of a stream that the server closes (RFC 6120 §4.4)."`
	Idle      time.Duration `yaml:"idle" reload:"restart" doc:"Silence after which a session is asked whether it is still there."`
	Drain     time.Duration `yaml:"drain" reload:"restart" doc:"For clients to leave when the server stops."`
}

// Connections bound how many there are.
type Connections struct {
	Total      int `yaml:"total" min:"1" reload:"restart" doc:"Connections at one time."`
	PerAddress int `yaml:"per_address" min:"1" reload:"restart" doc:"Connections at one time from one address (IPv6: one /64). Loopback is not counted."`
}

// Resumption configures stream management.
type Resumption struct {
	Window     time.Duration `yaml:"window" reload:"restart" doc:"How long a session without a connection may be resumed."`
	Unacked    int           `yaml:"unacked" min:"10" reload:"restart" doc:"Stanzas that may wait for a client's acknowledgement."`
	RequestGap time.Duration `yaml:"request_gap" reload:"restart" doc:"A client that does not answer a request for acknowledgement for so long has lost its connection."`
}

func defaults() *Config {
	return &Config{
		C2S: ":5222", C2STLS: ":5223", HTTP: "127.0.0.1:5280", HTTPS: ":5443",
		TLS:         TLS{Required: true, ACME: ACME{HTTP: ":80"}},
		Limits:      Limits{Stanza: 256 << 10, PreAuth: 10000, Depth: 64, Attributes: 64, AuthTries: 5, ResourceTries: 5},
		Rate:        Rate{Bytes: 256 << 10, Stanzas: 200, Burst: 10, Account: 4, Address: 40, Patience: 5 * time.Minute},
		Timeouts:    Timeouts{Handshake: 10 * time.Second, Login: 30 * time.Second, Element: time.Minute, Close: 5 * time.Second, Idle: 3 * time.Minute, Drain: 10 * time.Second},
		Connections: Connections{Total: 100_000, PerAddress: 200},
		Outbox:      1 << 20,
		Deployment:  plugins.Deployment{Type: "local"},
		Resumption:  Resumption{Window: 5 * time.Minute, Unacked: 1000, RequestGap: time.Minute},
	}
}

// reader returns the parser's limits for a stream that has logged in or not.
func (l Limits) reader(bound bool) stanza.Limits {
	size := l.PreAuth
	if bound {
		size = l.Stanza
	}
	return stanza.Limits{Bytes: int(size), Depth: l.Depth, Attrs: l.Attributes}
}
