// Package component lets external components take part (XEP-0114, accept).
//
// A component opens a stream in jabber:component:accept, names its domain,
// proves the shared secret by a hash, and is bound to the domain: from then on
// the router hands it every stanza for the domain, and it may send as anybody
// there. The processor sees that it does not send as anybody else, the parser
// moves its stanzas between the namespaces. While it is away, the router
// answers in its place.
package component

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"reflect"
	"sync"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/config"
	"parley/processor"
	"parley/router"
	"parley/stream"
)

// Plugin provides the listener, and the answers for components that are away.
var Plugin = plugins.Plugin{
	Name:     "component",
	Doc:      "External components connect and serve domains of their own (XEP-0114).",
	Requires: []string{"disco"},
	Contract: func(env plugins.Env) (any, error) { return newDirectory(env), nil },
	Components: []plugins.Maker{
		{Server: stream.Name, Defaults: &Config{Conflict: Replace}, New: newListener},
		{Server: router.Name, New: newAbsences},
		{Server: processor.Name, New: newServices},
	},
}

// Policy is for a component that connects while its domain is taken (rule 69).
type Policy string

// The policies.
const (
	Replace Policy = "replace" // the newest connection wins, the old one gets <conflict/>
	Refuse  Policy = "refuse"  // the newest connection gets <conflict/>
)

// Config is the listener's section.
type Config struct {
	Address    string           `yaml:"address" overlay:"node" doc:"Address for external components, like 127.0.0.1:5275; empty: none. Their streams are not encrypted: keep it on this machine or a private network."`
	Components map[string]Entry `yaml:"components" doc:"The components, by the domain that each serves."`
	Conflict   Policy           `yaml:"conflict" enum:"replace,refuse" doc:"What happens when a component connects while its domain is taken: replace ends the old connection, refuse the new one."`
}

// Entry is one component.
type Entry struct {
	Secret config.Secret `yaml:"secret" doc:"The secret that the component shares with this server."`
	Name   string        `yaml:"name" doc:"What people see of it in the list of services; empty: its domain."`
	Grants `yaml:",inline"`
}

// Validate implements what package config asks of a section.
func (c *Config) Validate() error {
	var errs []error
	for domain, e := range c.Components {
		key := fmt.Sprintf("components.%q", domain)
		j, err := jid.Parse(domain)
		switch {
		case err != nil || !j.IsDomain() || j.String() != domain:
			errs = append(errs, config.Key(key, "%q is not a domain", domain))
		case e.Secret.IsZero():
			errs = append(errs, config.Key(key+".secret", "is needed"))
		default:
			errs = append(errs, e.check(key)...)
		}
	}
	return errors.Join(append(errs, once(c.Components)...)...)
}

// listener accepts components.
type listener struct {
	env       plugins.Env
	log       *slog.Logger
	directory *Directory
	streams   *stream.Registrar

	ctx    context.Context // of the streams' reading
	cancel context.CancelFunc
	accept sync.WaitGroup

	mu    sync.Mutex // guards cfg and open; held while a name is being taken
	cfg   Config
	open  net.Listener
	ready bool // Register was called
}

var (
	_ stream.Component     = (*listener)(nil)
	_ plugins.Reconfigurer = (*listener)(nil)
)

func newListener(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	cfg, err := decode(env, c)
	if err != nil {
		return nil, err
	}
	d, err := plugins.Need[*Directory](env, "component")
	if err != nil {
		return nil, err
	}
	return &listener{env: env, log: env.Log, directory: d, cfg: cfg}, nil
}

func decode(env plugins.Env, c plugins.Config) (Config, error) {
	cfg := Config{Conflict: Replace}
	if err := c.Decode(&cfg); err != nil {
		return cfg, err
	}
	for domain := range cfg.Components {
		if env.Local(domain) {
			return cfg, fmt.Errorf("components: %s is served by this server itself", domain)
		}
	}
	return cfg, nil
}

// Start implements plugins.Component. Whoever connects waits until Register.
func (l *listener) Start(context.Context) error {
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.mu.Lock()
	defer l.mu.Unlock()
	open, err := listen(l.cfg.Address)
	if err != nil {
		return err
	}
	l.open = open
	l.directory.set(l.cfg.Components)
	return nil
}

// Register implements stream.Component.
func (l *listener) Register(r *stream.Registrar) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.streams, l.ready = r, true
	l.serve()
}

// Stop implements plugins.Component: it ends the streams of every component.
func (l *listener) Stop(context.Context) error {
	l.mu.Lock()
	l.closeDoor()
	was := l.cfg.Components
	l.cfg.Components = nil
	l.directory.set(nil)
	l.mu.Unlock()
	l.directory.tell()
	l.cancel()
	l.accept.Wait()
	for domain := range was {
		l.end(domain, stanza.StreamSystemShutdown)
	}
	return nil
}

// Reconfigure implements plugins.Reconfigurer: components whose entry has not
// changed stay connected.
func (l *listener) Reconfigure(_ context.Context, c plugins.Config) error {
	cfg, err := decode(l.env, c)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if cfg.Address != l.cfg.Address {
		open, err := listen(cfg.Address)
		if err != nil {
			return err
		}
		l.closeDoor()
		l.open = open
		l.serve()
	}
	was := l.cfg.Components
	l.cfg = cfg
	l.directory.set(cfg.Components)
	l.directory.tell()
	for domain, e := range was {
		switch now, still := cfg.Components[domain]; {
		case !still:
			l.end(domain, stanza.StreamHostGone)
		case now.Secret != e.Secret, !reflect.DeepEqual(now.Grants, e.Grants):
			l.end(domain, stanza.StreamReset) // RFC 6120 §4.9.3.16: it has to prove itself again, and hears what it may
		}
	}
	return nil
}

func listen(address string) (net.Listener, error) {
	if address == "" {
		return nil, nil
	}
	open, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("components: %w", err)
	}
	return open, nil
}

// door is the listener's name among the streamer's doors.
const door = "component"

// serve accepts on what is open; l.mu is held.
func (l *listener) serve() {
	if l.open == nil || !l.ready {
		return
	}
	open := l.open
	l.streams.Door(door, open.Addr())
	l.directory.setDoor(open.Addr().String())
	l.log.Info("listening", "door", door, "address", open.Addr().String())
	l.accept.Go(func() { l.acceptOn(open) })
}

// closeDoor ends accepting; l.mu is held.
func (l *listener) closeDoor() {
	if l.open == nil {
		return
	}
	_ = l.open.Close()
	l.open = nil
	l.directory.setDoor("")
	if l.ready {
		l.streams.Door(door, nil)
	}
}

// end closes the stream that is bound to the domain, if it is this node's.
func (l *listener) end(domain string, why stanza.StreamCondition) {
	if e, ok := l.directory.connected(domain); ok && e.Node == l.env.Node && l.streams != nil {
		l.streams.Close(e.Ref, &stanza.StreamError{Condition: why})
	}
}

// absences answers for components that are away.
type absences struct{ directory *Directory }

var _ router.Component = (*absences)(nil)

func newAbsences(env plugins.Env, _ plugins.Config) (plugins.Component, error) {
	d, err := plugins.Need[*Directory](env, "component")
	if err != nil {
		return nil, err
	}
	return &absences{d}, nil
}

// Register implements router.Component.
func (a *absences) Register(r *router.Registrar) { r.Absent(a.why) }

// why is the error for stanzas to a component that is not connected: it may
// come back, so trying again makes sense (RFC 6120 §8.3.2).
func (a *absences) why(domain string) *stanza.Error {
	if !a.directory.Known(domain) {
		return nil
	}
	e := stanza.NewError(stanza.ServiceUnavailable, "the component is not connected")
	e.Type = stanza.Wait
	return e
}

// Start implements plugins.Component.
func (a *absences) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (a *absences) Stop(context.Context) error { return nil }
