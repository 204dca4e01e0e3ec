// Package upload lets people send files (XEP-0363): a client asks for a slot,
// uploads over HTTP, and sends the address to whom it likes.
//
// Each domain that is served has a service, upload.<domain>. The component in the
// processor gives slots; the one in the streamer has the HTTP doors, where files are
// put and fetched. What they share is the contract *Files; what they agree on is in
// the database, so that any node takes a file for which any other has given the slot.
//
//	request → slot.go       may the account have it: size, quota, open slots
//	PUT     → put.go        the slot is claimed, the content streamed into Env.Files
//	        → seal.go       … encrypted when the database is
//	        → commit.go     … scanned (scan.go), then the rows say that it is there
//	GET     → get.go        ranges, headers that make it harmless
//	        → thumbnail.go  a small picture of a large one (picture/)
//	time    → sweep.go      what has expired, what was left, what nobody knows
//
// A slot and the file in it are one row (upload_file) that belongs to an account;
// the content is another (upload_blob), shared by all files that are the same. Whoever
// knows the address of a file can read it; the address that was given for uploading
// can delete it, too.
package upload

import (
	"context"
	"embed"
	"net/url"
	"strings"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/plugins/config"
	"parley/plugins/disco"
	"parley/processor"
	"parley/storage"
	"parley/storage/atrest"
	"parley/stream"
)

// Name is the plugin's name, for Requires.
const Name = "upload"

// Namespaces.
const (
	NS        = "urn:xmpp:http:upload:0"         // XEP-0363 §11.1
	NSPurpose = "urn:xmpp:http:upload:purpose:0" // XEP-0363 §5
	NSFiles   = "parley:files:0"                 // what an account has uploaded: files.go
)

//go:embed sql
var migrations embed.FS

// Plugin provides the service, the HTTP door and the contract *Files.
var Plugin = plugins.Plugin{
	Name:     Name,
	Doc:      "People send each other pictures and other files.",
	Requires: []string{"disco"},
	Components: []plugins.Maker{
		{Server: processor.Name, Defaults: defaults(), New: newService},
		{Server: stream.Name, Name: "upload-http", Defaults: doorDefaults(), New: newDoor},
	},
	Migrations: migrations,
	Sealed:     []atrest.Table{sealedFiles, sealedBlobs, sealedSecrets},
	// Slots of before are used up: nobody knows what became of them since.
	Restored: func(ctx context.Context, tx storage.Tx, _ int64) error {
		_, err := tx.Exec(ctx, `DELETE FROM upload_file WHERE state <> $1`, stateStored)
		return err
	},
	Contract: func(env plugins.Env) (any, error) { return newFiles(env) },
}

// Config is the section of the component in the processor.
type Config struct {
	HostPrefix string        `yaml:"host_prefix" reload:"restart" doc:"The services are at <host_prefix>.<domain>, for each domain."`
	Name       string        `yaml:"name" doc:"Name of the services, as people see it in service browsers."`
	BaseURL    string        `yaml:"base_url" doc:"Where clients reach the HTTPS door, like https://files.example.org: best a name that nothing else is served at. Empty: https://<domain> with the port of the https door of this process."`
	Lifetime   time.Duration `yaml:"slot_lifetime" min:"10s" max:"1h" doc:"How long after it was given a slot can be used."`
	MaxSlots   int           `yaml:"max_slots" min:"1" max:"10000" doc:"Slots that one account may have open at the same time."`
	Message    Bucket        `yaml:"message" doc:"Files that are sent in messages."`
	Profile    Bucket        `yaml:"profile" doc:"Pictures of oneself."`
	Ephemeral  Bucket        `yaml:"ephemeral" doc:"Files that whoever uploads them wants gone at some time."`
	Permanent  Bucket        `yaml:"permanent" doc:"Files of what is published."`
	Sweep      time.Duration `yaml:"sweep_interval" min:"1s" doc:"How often files are removed that have expired; nobody gets them before, either."`
	Audit      time.Duration `yaml:"audit_interval" min:"1m" doc:"How often what is stored is compared with what the database knows of."`
}

// Bucket is what holds for the files of one purpose (XEP-0363 §5).
type Bucket struct {
	MaxSize config.Size   `yaml:"max_size" doc:"Largest file. 0: files for this purpose are not taken."`
	Quota   config.Size   `yaml:"quota" doc:"What one account may have at the same time; a file counts as a multiple of 4 KiB."`
	Keep    time.Duration `yaml:"keep" min:"0s" doc:"How long files stay. 0: until they are deleted."`
}

const day = 24 * time.Hour

func defaults() *Config {
	return &Config{
		HostPrefix: "upload", Name: "File upload", Lifetime: 5 * time.Minute, MaxSlots: 30,
		Message:   Bucket{100 << 20, 2 << 30, 90 * day},
		Profile:   Bucket{8 << 20, 64 << 20, 0},
		Ephemeral: Bucket{100 << 20, 1 << 30, 7 * day},
		Permanent: Bucket{50 << 20, 1 << 30, 0},
		Sweep:     time.Minute, Audit: 6 * time.Hour,
	}
}

// Validate implements config.Validator.
func (c *Config) Validate() error {
	if c.HostPrefix == "" || strings.ContainsAny(c.HostPrefix, "@/ ") {
		return config.Key("host_prefix", "%q is no label of a domain", c.HostPrefix)
	}
	if c.BaseURL != "" {
		u, err := url.Parse(c.BaseURL)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.RawQuery != "" || u.Fragment != "" {
			return config.Key("base_url", "%q is not the URL of an HTTPS server", c.BaseURL)
		}
	}
	for _, p := range purposes {
		if b := p.of(c); b.MaxSize > 0 && b.Quota < b.MaxSize {
			return config.Key(p.name+".quota", "must be at least max_size, which is %s", b.MaxSize)
		}
	}
	return nil
}

// service works in the processor.
type service struct {
	*Files
	cfg   Config
	hosts plugins.Services
	reg   *processor.Registrar
	m     *slotMetrics
	back  plugins.Background
}

var _ processor.Component = (*service)(nil)

func newService(env plugins.Env, c plugins.Config) (plugins.Component, error) {
	s := &service{cfg: *defaults()}
	if err := c.Decode(&s.cfg); err != nil {
		return nil, err
	}
	var err error
	if s.hosts, err = env.Domains.Services(s.cfg.HostPrefix); err != nil {
		return nil, err
	}
	if s.Files, err = plugins.Need[*Files](env, Name); err != nil {
		return nil, err
	}
	s.m, err = newSlotMetrics(env.Metrics)
	return s, err
}

// Start implements plugins.Component.
func (s *service) Start(ctx context.Context) error {
	if s.env.Files == nil {
		s.env.Log.Warn("nobody can send files: several nodes need a place for them that all of them see; set storage.files.path or storage.files.kind")
		return nil
	}
	s.back.Start(ctx, s.sweep, s.audit)
	return nil
}

// Stop implements plugins.Component.
func (s *service) Stop(context.Context) error {
	s.back.Stop()
	return nil
}

// Register implements processor.Component.
func (s *service) Register(r *processor.Registrar) {
	s.reg = r
	r.Owned(processor.Owned{Key: s.key, Handle: s.handle})
	processor.On(r, disco.Items, processor.Normal, s.listed)
	processor.On(r, processor.AccountRemoved, processor.Normal, s.accountRemoved)
}

// at is where the files of a service's domain are; "": nowhere.
func (s *service) at(service jid.JID) string {
	domain, ours := s.hosts.Of(service.Domain())
	if !ours {
		return "" // it has just been removed
	}
	return s.base(domain)
}

// base is where the files of a domain are; "": nowhere.
func (s *service) base(domain string) string {
	if s.env.Files == nil {
		return ""
	}
	if s.cfg.BaseURL != "" {
		return strings.TrimSuffix(s.cfg.BaseURL, "/")
	}
	return s.doorURL(domain)
}

// accountRemoved lets an account's files go with it.
func (s *service) accountRemoved(ctx context.Context, account jid.JID) (processor.Verdict, error) {
	return processor.Continue, s.store.forget(ctx, account.String())
}
