// Package pushsender is the house's own push service (XEP-0357 §3, the app server):
// it hands the notices of plugins/push to the outside services that reach devices:
// Web Push and UnifiedPush (RFC 8030), APNs, FCM.
//
// Each domain that is served has a service, push.<domain>.
//
//	command → register.go   a client registers an endpoint and gets a node and a secret,
//	                        which it enables by XEP-0357 §5
//	publish → service.go    who publishes, and does the secret fit?
//	        → queue.go      calls first; few at a time for each host
//	        → webpush.go, apns.go, fcm.go
//	        → outcome.go    only when the outside service has taken it the request is
//	                        answered; until then plugins/push keeps it
//
// An outside service learns how many messages wait and whether that is urgent, and
// nothing of who wrote them or what.
package pushsender

import (
	"context"
	"embed"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/plugins/commands"
	"parley/plugins/config"
	"parley/plugins/disco"
	"parley/plugins/pubsub"
	"parley/plugins/push"
	"parley/processor"
)

// Name is the plugin's and the component's.
const Name = "pushsender"

//go:embed sql
var migrations embed.FS

// Plugin provides the component.
var Plugin = plugins.Plugin{
	Name:       Name,
	Doc:        "Wakes devices by Web Push, UnifiedPush, APNs and FCM, without anybody else's server.",
	Requires:   []string{commands.Name, "disco", pubsub.Name, push.Name},
	Components: []plugins.Maker{{Server: processor.Name, Defaults: defaults(), New: newService}},
	Migrations: migrations,
}

// Config is the component's section.
type Config struct {
	HostPrefix string        `yaml:"host_prefix" reload:"restart" doc:"The services are at <host_prefix>.<domain>, for each domain."`
	Name       string        `yaml:"name" doc:"Name of the services, as people see it in service browsers."`
	Max        int           `yaml:"max_registrations" min:"1" max:"1000" doc:"Devices and apps that one account may have registered; one more takes the place of the oldest."`
	Text       bool          `yaml:"text" doc:"Let clients choose to be told what stands for a message's text (servers.processor.components.push.text). Off: outside services are told numbers alone."`
	Messages   Urgency       `yaml:"messages" enum:"normal,high" doc:"How urgent messages are. normal: devices that save power may be told late. Calls are always urgent."`
	MessageTTL time.Duration `yaml:"message_ttl" min:"0s" max:"672h" doc:"How long an outside service keeps what it cannot deliver now."`
	CallTTL    time.Duration `yaml:"call_ttl" min:"0s" max:"10m" doc:"And that of a call, which is over soon."`
	Workers    int           `yaml:"workers" min:"1" max:"256" doc:"Notices that one node sends at the same time."`
	Queue      int           `yaml:"queue" min:"1" max:"100000" doc:"Notices that may wait for that on one node; one more is put off."`
	PerHost    int           `yaml:"per_host" min:"1" max:"256" doc:"Notices that one node sends to the same host at the same time."`
	Rate       float64       `yaml:"rate" min:"0.1" max:"10000" doc:"Notices that one node sends to the same host each second; what is more is put off."`
	Timeout    time.Duration `yaml:"timeout" min:"1s" max:"20s" doc:"How long an outside service may take to answer."`
	GiveUp     time.Duration `yaml:"give_up" min:"1h" max:"720h" doc:"How long an outside service may fail before the registration ends. One that says that the device is gone ends it at once."`
	Private    bool          `yaml:"private_addresses" doc:"Send to endpoints whose addresses are loopback, private or link-local. Off: nobody can make this server talk to what is behind it."`
	Trust      string        `yaml:"ca_file" doc:"A file with certificates (PEM) that are trusted besides the system's, for a UnifiedPush server of one's own."`
	WebPush    WebPush       `yaml:"webpush" doc:"Web Push and UnifiedPush."`
	APNs       APNs          `yaml:"apns" doc:"Apple's devices."`
	FCM        FCM           `yaml:"fcm" doc:"Google's devices."`
}

// Urgency is how soon a device is to be told.
type Urgency string

// WebPush is what Web Push needs.
type WebPush struct {
	Key     config.Secret `yaml:"vapid_key" doc:"The server's key (RFC 8292): a P-256 private key as PEM, or its 32 bytes in base64url. Empty: no Web Push. With another key, clients have to register again."`
	Contact string        `yaml:"contact" max:"200" doc:"Whom services write to when something is wrong: mailto:admin@example.org, or an https address."`
}

// APNs is what Apple's service needs.
type APNs struct {
	Key   config.Secret `yaml:"key" doc:"The signing key that Apple gives (AuthKey_….p8). Empty: no APNs."`
	KeyID string        `yaml:"key_id" max:"32" doc:"The key's name, ten letters and digits."`
	Team  string        `yaml:"team_id" max:"32" doc:"The team that the key belongs to, ten letters and digits."`
	Apps  []string      `yaml:"apps" max:"100" doc:"The apps that may register, by bundle id."`
	URL   string        `yaml:"url" doc:"Where the service is; https://api.sandbox.push.apple.com for apps in development."`
	Alert string        `yaml:"alert" max:"200" doc:"What a device shows that cannot ask this server; the app replaces it."`
}

// FCM is what Google's service needs.
type FCM struct {
	Account config.Secret `yaml:"account" doc:"The service account's file (JSON) that Google gives. Empty: no FCM."`
	URL     string        `yaml:"url" doc:"Where the service is."`
}

func defaults() *Config {
	return &Config{
		HostPrefix: "push", Name: "Push notifications", Max: 20, Messages: normal,
		MessageTTL: 24 * time.Hour, CallTTL: 30 * time.Second,
		Workers: 16, Queue: 2000, PerHost: 8, Rate: 100, Timeout: 10 * time.Second, GiveUp: 72 * time.Hour,
		APNs: APNs{URL: "https://api.push.apple.com", Alert: "New message"},
		FCM:  FCM{URL: "https://fcm.googleapis.com"},
	}
}

// Validate implements config.Validator.
func (c *Config) Validate() error {
	if c.HostPrefix == "" || strings.ContainsAny(c.HostPrefix, "@/ ") {
		return config.Key("host_prefix", "%q is no label of a domain", c.HostPrefix)
	}
	for key, at := range map[string]string{"apns.url": c.APNs.URL, "fcm.url": c.FCM.URL} {
		if u, err := url.Parse(at); err != nil || u.Scheme != "https" || u.Host == "" || strings.HasSuffix(u.Path, "/") {
			return config.Key(key, "%q is no https address without a / at its end", at)
		}
	}
	if c.WebPush.Key.IsZero() {
		return nil
	}
	if u, err := url.Parse(c.WebPush.Contact); err != nil || u.Scheme != "https" && u.Scheme != "mailto" {
		return config.Key("webpush.contact", "%q is neither mailto:… nor https://… (RFC 8292 §2.1)", c.WebPush.Contact)
	}
	return nil
}

type service struct {
	env     plugins.Env
	cfg     Config
	store   store
	hosts   plugins.Services
	senders map[string]sender // by kind; without those that are not configured
	kinds   []string          // of the senders, in the order in which people see them
	vapid   string            // the public key; "": no Web Push
	queue   *queue
	reg     *processor.Registrar
	m       *metrics
}

var _ processor.Component = (*service)(nil)

func newService(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	s := &service{env: env, cfg: *defaults(), store: store{env}, senders: map[string]sender{}}
	if err := c.Decode(&s.cfg); err != nil {
		return nil, err
	}
	var err error
	if s.hosts, err = env.Domains.Services(s.cfg.HostPrefix); err != nil {
		return nil, err
	}
	if err := s.makeSenders(); err != nil {
		return nil, fmt.Errorf("pushsender: %w", err)
	}
	if s.m, err = newMetrics(env.Metrics); err != nil {
		return nil, err
	}
	s.queue = newQueue(&s.cfg, env.Clock, s.send, s.m)
	return s, nil
}

// makeSenders makes those that are configured.
func (s *service) makeSenders() error {
	client, err := outside(&s.cfg, s.cfg.Private)
	if err != nil {
		return err
	}
	own, err := outside(&s.cfg, true) // the operator says where these are
	if err != nil {
		return err
	}
	if !s.cfg.WebPush.Key.IsZero() {
		w, err := newWebPush(&s.cfg, client)
		if err != nil {
			return fmt.Errorf("webpush.vapid_key: %w", err)
		}
		s.vapid, s.senders[kindWebPush] = w.public, w
	}
	if !s.cfg.APNs.Key.IsZero() {
		if s.senders[kindAPNs], err = newAPNs(&s.cfg, own, s.env.Clock); err != nil {
			return fmt.Errorf("apns: %w", err)
		}
	}
	if !s.cfg.FCM.Account.IsZero() {
		if s.senders[kindFCM], err = newFCM(&s.cfg, own, s.env.Clock); err != nil {
			return fmt.Errorf("fcm.account: %w", err)
		}
	}
	for _, kind := range []string{kindWebPush, kindAPNs, kindFCM} {
		if s.senders[kind] != nil {
			s.kinds = append(s.kinds, kind)
		}
	}
	return nil
}

// Start implements plugins.Component.
func (s *service) Start(ctx context.Context) error {
	s.queue.start(context.WithoutCancel(ctx))
	return nil
}

// Stop implements plugins.Component: what waits is put off.
func (s *service) Stop(context.Context) error {
	s.queue.stop()
	return nil
}

// Register implements processor.Component.
func (s *service) Register(r *processor.Registrar) {
	s.reg = r
	r.Owned(processor.Owned{Key: s.key, Handle: s.handle})
	processor.On(r, disco.Items, processor.Normal, s.listed)
	processor.On(r, commands.Offered, processor.Normal, s.offer)
	processor.On(r, push.Telling, processor.Normal, s.telling)
	processor.On(r, processor.AccountRemoved, processor.Normal, func(ctx context.Context, account jid.JID) (processor.Verdict, error) {
		return processor.Continue, s.store.forget(ctx, account)
	})
}

// at is the service of a domain.
func (s *service) at(domain string) (jid.JID, error) {
	if at, ours := s.hosts.At(domain); ours {
		return at, nil
	}
	return jid.JID{}, fmt.Errorf("no push service for %s (served are %v)", domain, slices.Sorted(slices.Values(s.env.Domains.List())))
}
