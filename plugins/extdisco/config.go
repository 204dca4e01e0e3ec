package extdisco

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins/config"
)

// Type is what a service is (XEP-0215 §2).
type Type string

// Types are those that can be configured, with the ports they usually have and what
// they usually run over (RFC 8489 §18.6, RFC 7065).
var types = []struct {
	name      Type
	port      int
	transport string
}{
	{"stun", 3478, "udp"},
	{"stuns", 5349, "tcp"},
	{"turn", 3478, "udp"},
	{"turns", 5349, "tcp"},
}

// index is the place of a type in the table; negative: it is not there.
func (t Type) index() int {
	for i := range types {
		if types[i].name == t {
			return i
		}
	}
	return -1
}

func (t Type) known() bool { return t.index() >= 0 }

// Config is the component's section.
type Config struct {
	TTL      time.Duration      `yaml:"credentials_ttl" min:"1m" max:"720h" doc:"How long credentials made from a shared secret are good. A call that is under way goes on after that only if its service lets it."`
	Services map[string]Service `yaml:"services" max:"50" doc:"The services, each under a name of its own, which is for this file alone. They are told in the order of these names."`
}

func defaults() *Config { return &Config{TTL: 24 * time.Hour} }

// Service is one of them.
type Service struct {
	Type      Type          `yaml:"type" enum:"stun,stuns,turn,turns" doc:"What it is; stuns and turns are those over TLS."`
	Host      string        `yaml:"host" doc:"Its domain name or address; an IPv6 address without brackets."`
	Port      int           `yaml:"port" min:"0" max:"65535" doc:"Its port; 0: 3478, or 5349 for stuns and turns."`
	Transport string        `yaml:"transport" enum:",udp,tcp" doc:"What it is reached over: udp or tcp; empty: udp, and tcp for stuns and turns."`
	Name      string        `yaml:"name" max:"200" doc:"What people see of it, if they see anything."`
	Secret    config.Secret `yaml:"secret" doc:"The secret that the service shares with this server (static-auth-secret of coturn): credentials are made from it."`
	Username  string        `yaml:"username" max:"500" doc:"A name that everybody uses, for services without a shared secret."`
	Password  config.Secret `yaml:"password" doc:"And its password. Everybody who has an account here gets to know both."`
}

// SetDefaults implements config.Defaulter.
func (s *Service) SetDefaults() { s.Type = "turn" }

// Validate implements config.Validator.
func (c *Config) Validate() error {
	var errs []error
	seen := map[key]string{}
	for name, s := range c.Services {
		at := fmt.Sprintf("services.%q", name)
		switch {
		case !isHost(s.Host):
			errs = append(errs, config.Key(at+".host", "%q is neither a domain name nor an address (IPv6 without brackets)", s.Host))
		case !s.Secret.IsZero() && (s.Username != "" || !s.Password.IsZero()):
			errs = append(errs, config.Key(at+".secret", "does not go together with username and password"))
		case (s.Username == "") != s.Password.IsZero():
			errs = append(errs, config.Key(at+".username", "needs a password, and a password needs a username"))
		case seen[s.key()] != "":
			errs = append(errs, config.Key(at+".host", "is the same service as %s", seen[s.key()]))
		}
		seen[s.key()] = name
	}
	return errors.Join(errs...)
}

// isHost reports whether a client can connect to a host of that name.
func isHost(s string) bool {
	if _, err := netip.ParseAddr(s); err == nil {
		return true
	}
	j, err := jid.Parse(s)
	return err == nil && j.IsDomain() && !strings.ContainsAny(s, "[]:/")
}

// key is what makes a service another one.
type key struct {
	typ       Type
	host      string
	port      int
	transport string
}

// key has the defaults filled in.
func (s *Service) key() key {
	k := key{s.Type, s.Host, s.Port, s.Transport}
	if i := s.Type.index(); i >= 0 {
		if k.port == 0 {
			k.port = types[i].port
		}
		if k.transport == "" {
			k.transport = types[i].transport
		}
	}
	return k
}

// restricted reports whether it wants credentials.
func (s *Service) restricted() bool { return !s.Secret.IsZero() || s.Username != "" }

// list is the services in the order of their names.
func (c *Config) list() []*Service {
	names := make([]string, 0, len(c.Services))
	for n := range c.Services {
		names = append(names, n)
	}
	slices.Sort(names)
	out := make([]*Service, 0, len(names))
	for _, n := range names {
		s := c.Services[n]
		out = append(out, &s)
	}
	return out
}

// matches reports whether a client's <service/> means this one (XEP-0215 §3.3):
// host and type, and what it says besides.
func (s *Service) matches(el *stanza.Element) bool {
	k := s.key()
	return string(k.typ) == el.Get("type") && strings.EqualFold(k.host, el.Get("host")) &&
		(!el.Has("port") || el.Get("port") == strconv.Itoa(k.port)) &&
		(!el.Has("transport") || el.Get("transport") == k.transport)
}

// element is <service/> without credentials (XEP-0215 §2).
func (k key) element() *stanza.Element {
	return stanza.El(NS, "service").With("type", string(k.typ)).With("host", k.host).With("port", strconv.Itoa(k.port)).With("transport", k.transport)
}

// element is <service/> with the credentials that were granted for it.
func (s *Service) element(g grant) *stanza.Element {
	out := s.key().element().WithOpt("name", s.Name)
	if !s.restricted() {
		return out
	}
	out.With("restricted", "1").With("username", g.username).With("password", g.password)
	if !g.expires.IsZero() {
		out.With("expires", g.expires.UTC().Format(time.RFC3339)) // XEP-0082 §3.2
	}
	return out
}
