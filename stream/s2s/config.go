package s2s

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/idna"

	"parley/parser/jid"
	"parley/plugins"
	"parley/plugins/config"
	"parley/stream"
)

// Config is the section of the component in the streamer.
type Config struct {
	Address string `yaml:"address" overlay:"node" doc:"Address for other servers, with STARTTLS; empty: none."`
	Direct  string `yaml:"direct_tls" overlay:"node" doc:"Address for other servers over direct TLS (XEP-0368); empty: none."`
	DNS     string `yaml:"dns" overlay:"node" doc:"Name server to ask for other servers, HOST:PORT; empty: the system's."`
	Private bool   `yaml:"private_addresses" doc:"Connect to servers whose addresses are loopback, private or link-local. Off: nobody can make this server talk to what is behind it."`
	CA      string `yaml:"ca" overlay:"node" doc:"PEM file with the authorities whose certificates count; empty: the system's."`
	Rules
	Domains map[string]Policy    `yaml:"domains" doc:"What is asked of some of them instead, by domain, whoever of ours talks to them."`
	Own     config.ByDomain[Own] `yaml:"own" doc:"Domains of ours where it is otherwise, and for their services; enabled: false keeps one from other servers."`
	Queue   Queue                `yaml:"queue" doc:"What waits for a server that is not reached."`
	Bidi    bool                 `yaml:"bidi" doc:"Let stanzas go both ways on one stream, where the other server can do that too (XEP-0288). Off: one stream for each direction."`
	Idle    time.Duration        `yaml:"idle" min:"1s" doc:"A stream to another server on which nothing was said for so long is closed; the next stanza opens it again."`
	Connect time.Duration        `yaml:"connect" min:"1s" max:"2m" doc:"For finding another server, connecting, and each answer of it until the stream is there."`
	Pairs   int                  `yaml:"pairs" min:"1" max:"1000" doc:"Pairs of domains that one stream of another server may speak for (XEP-0220)."`
	Rate    stream.Rate          `yaml:"rate" doc:"How fast one stream of another server may send, and all of a domain or an address together (account: sessions' worth of one domain); beyond it their reading slows down."`
}

// Rules are what may differ by domain of ours.
type Rules struct {
	Policy Policy   `yaml:"policy" doc:"What is asked of other servers."`
	Allow  []string `yaml:"allow" doc:"Domains to talk to, and no others; *.example.org for all below one. Empty: all."`
	Deny   []string `yaml:"deny" doc:"Domains never to talk to; *.example.org for all below one."`
}

// Own is what is different at a domain of ours.
type Own struct {
	Enabled bool `yaml:"enabled" doc:"It talks to other servers."`
	Rules
}

// Encryption is what a policy asks of TLS.
type Encryption string

// What a policy asks of TLS.
const (
	Required Encryption = "required"
	Optional Encryption = "optional"
)

// Proof is how a server may show who it is.
type Proof string

// The proofs.
const (
	Certificate Proof = "certificate" // a valid certificate, and nothing else (XEP-0178)
	Dialback    Proof = "dialback"    // that, or else dialback (XEP-0220)
)

// Policy is what is asked of other servers.
type Policy struct {
	TLS   Encryption `yaml:"tls" enum:"required,optional" doc:"required: nothing is said without encryption."`
	Proof Proof      `yaml:"proof" enum:"certificate,dialback" doc:"certificate: a server must have a valid one for its domain, whichever side connects. dialback: one without may prove itself over DNS instead (XEP-0220), which an attacker on the way can forge."`
}

// SetDefaults implements config.Defaulter.
func (p *Policy) SetDefaults() { *p = Policy{TLS: Required, Proof: Dialback} }

// Queue bounds what waits for one server.
type Queue struct {
	Stanzas  int           `yaml:"stanzas" min:"1" max:"100000" doc:"Stanzas that may wait for one domain, or for its acknowledgement."`
	Bytes    config.Size   `yaml:"bytes" min:"64KiB" doc:"Bytes of them."`
	Patience time.Duration `yaml:"patience" min:"1s" max:"1h" doc:"How long one waits before its sender gets an error (remote-server-timeout)."`
	Servers  int           `yaml:"servers" min:"1" max:"1000000" doc:"Pairs of a domain of ours and another's that may have a stream or a queue at one time."`
}

func defaults() *Config {
	return &Config{
		Address: ":5269", Direct: ":5270",
		Rules:   Rules{Policy: Policy{TLS: Required, Proof: Dialback}},
		Queue:   Queue{Stanzas: 1000, Bytes: 4 << 20, Patience: time.Minute, Servers: 10_000},
		Bidi:    false,
		Idle:    10 * time.Minute,
		Connect: 20 * time.Second,
		Pairs:   50,
		Rate:    stream.Rate{Bytes: 1 << 20, Stanzas: 1000, Burst: 10, Account: 4, Address: 40},
	}
}

// Validate implements what package config asks of a section.
func (c *Config) Validate() error {
	var errs []error
	for _, a := range []struct{ key, address string }{{"address", c.Address}, {"direct_tls", c.Direct}, {"dns", c.DNS}} {
		if a.address == "" {
			continue
		}
		if _, port, err := net.SplitHostPort(a.address); err != nil || port == "" {
			errs = append(errs, config.Key(a.key, "%q is no address: HOST:PORT", a.address))
		}
	}
	for d := range c.Domains {
		if err := domainName(d); err != nil {
			errs = append(errs, config.Key(fmt.Sprintf("domains.%q", d), "%w", err))
		}
	}
	errs = append(errs, c.lists("", Rules{})...)
	for d, own := range c.Own {
		errs = append(errs, own.lists(fmt.Sprintf("own.%q.", d), c.Rules)...)
	}
	return errors.Join(errs...)
}

// lists checks the names in the lists, whose keys begin with at, but for those that are
// as above.
func (r *Rules) lists(at string, above Rules) (errs []error) {
	for key, list := range map[string][2][]string{"allow": {r.Allow, above.Allow}, "deny": {r.Deny, above.Deny}} {
		if slices.Equal(list[0], list[1]) {
			continue
		}
		for _, d := range list[0] {
			if err := domainName(strings.TrimPrefix(d, "*.")); err != nil {
				errs = append(errs, config.Key(at+key, "%w", err))
			}
		}
	}
	return errs
}

// domainName fails for what is no prepared domain.
func domainName(d string) error {
	j, err := jid.Parse(d)
	if err != nil || !j.IsDomain() || j.String() != d {
		return fmt.Errorf("%q is not a domain", d)
	}
	return nil
}

// settings are a Config that counts.
type settings struct {
	Config
	served *plugins.Domains
	roots  *x509.CertPool // nil: the system's
}

func newSettings(c Config, served *plugins.Domains) (*settings, error) {
	s := &settings{Config: c, served: served}
	if c.CA == "" {
		return s, nil
	}
	pem, err := os.ReadFile(c.CA)
	if err != nil {
		return nil, fmt.Errorf("ca: %w", err)
	}
	s.roots = x509.NewCertPool()
	if !s.roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("ca: %s has no certificate in it", c.CA)
	}
	return s, nil
}

// at is what counts at a domain of ours. A service has what its domain has: the
// nearest that is served.
func (s *settings) at(ours string) Own {
	everywhere := Own{true, s.Rules}
	if len(s.Own) == 0 {
		return everywhere
	}
	home := ""
	for _, d := range s.served.List() {
		if len(d) > len(home) && within(ours, d) {
			home = d
		}
	}
	return s.Own.Of(home, everywhere)
}

// within reports whether a domain is another, or below it.
func within(domain, above string) bool {
	return domain == above || strings.HasSuffix(domain, "."+above)
}

// federates reports whether a domain of ours talks to other servers at all.
func (s *settings) federates(ours string) bool { return public(ours) && s.at(ours).Enabled }

// open reports whether any of ours does.
func (s *settings) open() bool { return slices.ContainsFunc(s.served.List(), s.federates) }

// policy is what a domain of ours asks of another's server.
func (s *settings) policy(ours, theirs string) Policy {
	if p, ok := s.Domains[theirs]; ok {
		return p
	}
	return s.at(ours).Policy
}

// allowed reports whether a domain of ours may talk to another.
func (s *settings) allowed(ours, theirs string) bool {
	own := s.at(ours)
	if !own.Enabled || matches(own.Deny, theirs) {
		return false
	}
	return len(own.Allow) == 0 || matches(own.Allow, theirs)
}

func matches(list []string, domain string) bool {
	for _, d := range list {
		below, wide := strings.CutPrefix(d, "*.")
		if d == domain || wide && domain != below && within(domain, below) {
			return true
		}
	}
	return false
}

// public reports whether a domain of ours can be one that others find: localhost
// and names without a dot cannot (RFC 6761 §6.3).
func public(domain string) bool {
	return strings.Contains(domain, ".") && domain != "localhost" && !strings.HasSuffix(domain, ".localhost")
}

// ascii is the domain as DNS and certificates have it (RFC 5891 §5).
func ascii(domain string) (string, error) { return idna.Lookup.ToASCII(domain) }
