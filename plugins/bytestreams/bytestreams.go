// Package bytestreams is a relay for files between people who cannot reach each
// other (XEP-0065): both connect to it, and what one sends the other gets.
//
// Each domain that is served has a service, proxy.<domain>. A connection says which
// bytestream it is of by a hash and nothing else (socks.go, RFC 1928); it waits for the
// other one (table.go) until the requester, who must be somebody of this server, asks
// for the bytestream to be activated; then bytes go to and fro (relay.go). Nothing is
// ever connected to.
//
//	<query/>     the address of this node
//	<activate/>  here, or else at the node that both have come to (nodes.go)
package bytestreams

import (
	"context"
	"crypto/sha1" //nolint:gosec // XEP-0065 asks for it
	"encoding/hex"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/config"
	"parley/plugins/disco"
	"parley/processor"
	"parley/router/cluster/owner"
)

// NS is the namespace of XEP-0065 §13.
const NS = "http://jabber.org/protocol/bytestreams"

// Plugin provides the service.
var Plugin = plugins.Plugin{
	Name:       "bytestreams",
	Doc:        "Relays files between people whose devices cannot reach each other (XEP-0065).",
	Requires:   []string{"disco"},
	Components: []plugins.Maker{{Server: processor.Name, Off: true, Defaults: defaults(), New: newProxy}},
}

// Config is the section of the component.
type Config struct {
	HostPrefix string        `yaml:"host_prefix" reload:"restart" doc:"The services are at <host_prefix>.<domain>, for each domain."`
	Name       string        `yaml:"name" doc:"Name of the services, as people see it in service browsers."`
	Address    string        `yaml:"address" overlay:"node" reload:"restart" doc:"Where clients connect to this node, HOST:PORT."`
	Host       string        `yaml:"host" overlay:"node" doc:"Name or address of this node that clients are told; each node of several has its own. Empty: the domain."`
	Port       int           `yaml:"port" overlay:"node" min:"0" max:"65535" doc:"Port that clients are told. 0: that of address."`
	Streams    int           `yaml:"streams" min:"1" max:"1000" doc:"Bytestreams that one account may have at the same time, at each node."`
	Total      int           `yaml:"total" min:"1" max:"100000" doc:"And all accounts together."`
	Waiting    int           `yaml:"waiting" min:"2" max:"100000" doc:"Connections that may wait for their bytestream to be activated."`
	PerAddress int           `yaml:"waiting_per_address" min:"2" max:"10000" doc:"And of them, from one address (an IPv6 network of 64 bits counts as one)."`
	Patience   time.Duration `yaml:"patience" min:"1s" max:"1h" doc:"How long they may."`
	Bytes      config.Size   `yaml:"max_bytes" min:"1MiB" doc:"What one bytestream may carry, in both directions together."`
	Rate       config.Size   `yaml:"rate" min:"16KiB" doc:"And how much in one second, in each direction."`
	Idle       time.Duration `yaml:"idle" min:"1s" max:"24h" doc:"A bytestream on which nothing has come for so long ends."`
}

func defaults() *Config {
	return &Config{
		HostPrefix: "proxy", Name: "File relay", Address: ":7777",
		Streams: 10, Total: 1000, Waiting: 1000, PerAddress: 20, Patience: 2 * time.Minute,
		Bytes: 4 << 30, Rate: 8 << 20, Idle: 5 * time.Minute,
	}
}

// Validate implements config.Validator.
func (c *Config) Validate() error {
	if c.HostPrefix == "" || strings.ContainsAny(c.HostPrefix, "@/ ") {
		return config.Key("host_prefix", "%q is no label of a domain", c.HostPrefix)
	}
	if _, port, err := net.SplitHostPort(c.Address); err != nil || port == "" {
		return config.Key("address", "%q is no address: HOST:PORT", c.Address)
	}
	return nil
}

// proxy works in the processor.
type proxy struct {
	env   plugins.Env
	cfg   atomic.Pointer[Config]
	hosts plugins.Services
	m     *metrics
	table *table
	door  *door
	nodes *nodes
	reg   *processor.Registrar
}

var (
	_ processor.Component  = (*proxy)(nil)
	_ plugins.Reconfigurer = (*proxy)(nil)
)

func newProxy(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	cfg := defaults()
	if err := c.Decode(cfg); err != nil {
		return nil, err
	}
	p := &proxy{env: env}
	p.cfg.Store(cfg)
	var err error
	if p.hosts, err = env.Domains.Services(cfg.HostPrefix); err != nil {
		return nil, err
	}
	if p.m, err = newMetrics(env.Metrics); err != nil {
		return nil, err
	}
	p.table = newTable(env.Clock, p.cfg.Load, p.m)
	p.door = newDoor(env, p.table)
	p.nodes = newNodes(env, p.table)
	return p, nil
}

// Start implements plugins.Component.
func (p *proxy) Start(context.Context) error { return p.door.open(p.cfg.Load().Address) }

// Stop implements plugins.Component: what is relayed ends.
func (p *proxy) Stop(context.Context) error {
	p.nodes.stop()
	p.door.close()
	p.table.close()
	return nil
}

// Reconfigure implements plugins.Reconfigurer: bytestreams that are there go on.
func (p *proxy) Reconfigure(_ context.Context, c plugins.Config) error {
	cfg := defaults()
	if err := c.Decode(cfg); err != nil {
		return err
	}
	p.cfg.Store(cfg)
	return nil
}

// Register implements processor.Component.
func (p *proxy) Register(r *processor.Registrar) {
	p.reg = r
	r.Owned(processor.Owned{Key: p.key, Handle: p.handle})
	processor.On(r, disco.Items, processor.Normal, p.listed)
}

// key says which stanzas are for a service; any node answers them.
func (p *proxy) key(st *stanza.Stanza) (string, bool) {
	_, ours := p.hosts.Of(st.To.Domain())
	return "", ours
}

func (p *proxy) handle(ctx context.Context, st *stanza.Stanza, _ *owner.Hold) (*stanza.Element, error) {
	return disco.Service{Describe: p.describe, Serve: p.serve}.Handle(ctx, st)
}

// describe is XEP-0065 §4.
func (p *proxy) describe(_ jid.JID, f *disco.Facts) {
	f.AddIdentity(disco.Identity{Category: "proxy", Type: "bytestreams", Name: p.cfg.Load().Name})
	f.AddFeature(NS)
}

// listed names the service among what belongs to its domain (XEP-0065 §4).
func (p *proxy) listed(_ context.Context, a *disco.ItemsAnswer) (processor.Verdict, error) {
	if !a.Server() || a.Node != "" {
		return processor.Continue, nil
	}
	if at, ours := p.hosts.At(a.Owner.Domain()); ours {
		a.Items = append(a.Items, disco.Item{JID: at, Name: p.cfg.Load().Name})
	}
	return processor.Continue, nil
}

func (p *proxy) serve(ctx context.Context, st *stanza.Stanza, q *stanza.Element) (*stanza.Element, error) {
	switch {
	case q.Name != stanza.Name{Space: NS, Local: "query"}:
		return nil, stanza.NewError(stanza.ServiceUnavailable, "")
	case !p.may(st.From):
		return nil, stanza.NewError(stanza.Forbidden, "this relay is for people of this server")
	case st.Type == stanza.TypeGet:
		return p.address(st.To.Domain()), nil
	}
	return nil, p.activate(ctx, st, q)
}

// may reports whether somebody may use the relay: an account of this server. Whoever
// the file is for only connects.
func (p *proxy) may(who jid.JID) bool { return who.Local() != "" && p.env.Local(who.Domain()) }

// address is where to connect (XEP-0065 §4).
func (p *proxy) address(service string) *stanza.Element {
	cfg := p.cfg.Load()
	host, port := cfg.Host, cfg.Port
	if host == "" {
		host, _ = p.hosts.Of(service)
	}
	if port == 0 {
		port = p.door.port()
	}
	return stanza.El(NS, "query").Add(stanza.El(NS, "streamhost").With("jid", service).With("host", host).With("port", strconv.Itoa(port)))
}

// maxSID bounds the id of a bytestream, in bytes.
const maxSID = 1024

// activate is XEP-0065 §6.3.5: the requester's word lets the two connections of its
// bytestream begin.
func (p *proxy) activate(ctx context.Context, st *stanza.Stanza, q *stanza.Element) error {
	who := st.From
	sid, el := q.Get("sid"), q.Child(NS, "activate")
	if sid == "" || len(sid) > maxSID || el == nil {
		return stanza.NewError(stanza.BadRequest, "name the bytestream by its sid, and its target")
	}
	target, err := jid.Parse(strings.TrimSpace(el.Text()))
	if err != nil {
		return stanza.NewError(stanza.JIDMalformed, "")
	}
	dst, account := destination(sid, who, target), who.Bare().String()
	err = p.table.activate(dst, account)
	if p.env.Notices == nil || !errors.Is(err, errUnknown) && !errors.Is(err, errAlone) {
		return refusal(err)
	}
	late, here := context.WithoutCancel(ctx), err
	asks := p.nodes.ask(account, func() func() {
		answer := st.Reply(nil)
		var why *stanza.Error
		if errors.As(refusal(p.nodes.activate(dst, account, here)), &why) {
			answer = st.ErrorReply(why)
		}
		return func() { p.reg.Submit(late, answer) }
	})
	if !asks {
		return refusal(errAsked)
	}
	return processor.ErrUnanswered
}

// destination is what both parties say to want to be connected to (XEP-0065 §6.3.2).
func destination(sid string, requester, target jid.JID) string {
	sum := sha1.Sum([]byte(sid + requester.String() + target.String())) //nolint:gosec // XEP-0065 asks for it
	return hex.EncodeToString(sum[:])
}
