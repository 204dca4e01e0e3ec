package plugins

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"parley/parser/jid"
	"parley/plugins/config"
	"parley/storage"
	"parley/storage/atrest"
	"parley/storage/blob"
)

// Settings are the top level of the configuration file.
type Settings struct {
	Domains []string        `yaml:"domains" min:"1" reload:"live" doc:"The XMPP domains that are served here; the part behind the @. parley domain adds and removes some at run time."`
	Data    string          `yaml:"data" overlay:"no" doc:"Directory of this installation: database, certificates, files, administration socket."`
	Node    string          `yaml:"node" overlay:"no" doc:"Name of this process among several; empty: the host's name."`
	Memory  config.Size     `yaml:"memory" overlay:"no" doc:"What the server may use of the machine's memory, about: beyond it new connections are refused and those end who hold most of it. 0: three quarters of the container's limit, or else of the machine's memory; GOMEMLIMIT is heeded."`
	Log     LogSettings     `yaml:"log" doc:"What is logged, and how."`
	Storage StorageSettings `yaml:"storage" overlay:"no" doc:"The database."`
	Cluster ClusterSettings `yaml:"cluster" overlay:"no" doc:"Several nodes that serve the same domains on one Postgres."`
}

// ClusterSettings say how nodes find each other.
type ClusterSettings struct {
	NATS  NATSSettings  `yaml:"nats" doc:"What carries envelopes between nodes."`
	Lease time.Duration `yaml:"lease" min:"2s" max:"1m" doc:"How long a node that does not answer counts as alive. One that has not reached Postgres for three quarters of it ends."`
}

// LogSettings configure log/slog.
type LogSettings struct {
	Level  string `yaml:"level" enum:"debug,info,warn,error" reload:"live" doc:"Least severity that is logged."`
	Format string `yaml:"format" enum:"text,json" doc:"Text for people, json for collectors."`
}

// StorageSettings choose the database.
type StorageSettings struct {
	Driver   string        `yaml:"driver" enum:"sqlite,postgres" doc:"sqlite needs nothing; postgres for large installations and clusters."`
	Path     string        `yaml:"path" doc:"SQLite: database file on a local disk; empty: parley.db in the data directory."`
	DSN      config.Secret `yaml:"dsn" doc:"Postgres: connection string, postgres://user@host/database."`
	Readers  int           `yaml:"readers" min:"1" max:"256" doc:"SQLite: connections for reading."`
	MaxConns int           `yaml:"max_conns" min:"2" max:"1000" doc:"Postgres: connections of the pool."`
	Timeout  time.Duration `yaml:"statement_timeout" min:"1s" doc:"Postgres: longest statement."`

	Files      FilesSettings      `yaml:"files" doc:"Where files are kept."`
	Encryption EncryptionSettings `yaml:"encryption" doc:"What people write is encrypted in the database. Who writes to whom and when is not. No full-text search."`
}

// EncryptionSettings are those of storage/atrest.
type EncryptionSettings struct {
	KeysFile string `yaml:"keys_file" reload:"live" doc:"A file with a key in each line: a number, and 32 bytes in base64; the first one encrypts. Made by parley keys new. Empty: nothing is encrypted."`
	Enabled  bool   `yaml:"enabled" reload:"live" doc:"false, with a keys_file: what is encrypted can be read, and is written back as it was."`
}

// FilesSettings are those of storage/blob.
type FilesSettings struct {
	Kind    string      `yaml:"kind" enum:"disk,s3" doc:"disk: a directory. s3: a bucket of a server that speaks S3."`
	Path    string      `yaml:"path" doc:"disk: the directory; empty: files in the data directory. Several nodes need one that all of them see, or s3: else nobody can send files."`
	Reserve config.Size `yaml:"reserve" doc:"disk: what stays free on its file system: files are refused before the database is in want of room."`
	S3      S3Settings  `yaml:"s3" doc:"s3: where the bucket is, and how to get at it."`
}

// S3Settings name a bucket.
type S3Settings struct {
	Endpoint  string        `yaml:"endpoint" doc:"The server, like https://s3.eu-central-1.amazonaws.com or http://127.0.0.1:7070."`
	Region    string        `yaml:"region" doc:"Its region, which signatures name."`
	Bucket    string        `yaml:"bucket" doc:"The bucket; it has to be there, and nobody else is to read it."`
	Prefix    string        `yaml:"prefix" doc:"What the names of all objects begin with, like parley/; empty: nothing."`
	AccessKey string        `yaml:"access_key" doc:"Whose signature requests carry."`
	SecretKey config.Secret `yaml:"secret_key" doc:"What they are signed with."`
	PathStyle bool          `yaml:"path_style" doc:"The bucket is in the path of requests, not in the host's name: what servers of one's own want, mostly."`
}

// Validate implements config.Validator.
func (s *FilesSettings) Validate() error {
	if s.Kind != "s3" {
		return nil
	}
	u, err := url.Parse(s.S3.Endpoint)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || strings.Trim(u.Path, "/") != "":
		return config.Key("s3.endpoint", "%q is not the URL of a server: https://HOST:PORT", s.S3.Endpoint)
	case s.S3.Bucket == "":
		return config.Key("s3.bucket", "name the bucket")
	case s.S3.AccessKey == "" || s.S3.SecretKey.IsZero():
		return config.Key("s3.access_key", "access_key and secret_key are both needed (secret_key_file or PARLEY_STORAGE_FILES_S3_SECRET_KEY keep the second one out of this file)")
	case s.S3.Prefix != "" && !strings.HasSuffix(s.S3.Prefix, "/"):
		return config.Key("s3.prefix", "must end with a slash")
	}
	return nil
}

// openFiles opens what keeps files; nil: several nodes would have a directory each.
func (s *Settings) openFiles() (blob.Store, error) {
	f := s.Storage.Files
	if f.Kind == "s3" {
		u, err := url.Parse(f.S3.Endpoint)
		if err != nil {
			return nil, fmt.Errorf("storage.files.s3.endpoint: %w", err)
		}
		return blob.Open(blob.Config{Kind: "s3", S3: blob.S3{
			Endpoint: u.Host, Insecure: u.Scheme == "http", Region: f.S3.Region, Bucket: f.S3.Bucket, Prefix: f.S3.Prefix,
			AccessKey: f.S3.AccessKey, SecretKey: f.S3.SecretKey.Reveal(), PathStyle: f.S3.PathStyle,
		}})
	}
	at := f.Path
	if at == "" {
		if s.Clustered() {
			return nil, nil
		}
		at = filepath.Join(s.Data, "files")
	}
	return blob.Open(blob.Config{Kind: "disk", Path: at, Reserve: int64(f.Reserve)})
}

// ring reads the keys file; nil: there is none.
func (s EncryptionSettings) ring() (*atrest.Ring, error) {
	if s.KeysFile == "" {
		return nil, nil
	}
	return atrest.Load(s.KeysFile)
}

// Deployment says how a Server is joined to the others.
type Deployment struct {
	Type    string `yaml:"type" enum:"local,distributed" doc:"local: in this process. distributed: other nodes reach it too (cluster.nats): in a cluster the streamer and the router are, and the processor of a node that takes fronts."`
	Workers int    `yaml:"workers" min:"0" max:"256" doc:"0: the Server runs on its callers' goroutines, or has 64 when the callers are on another node; n: n bounded queues with a worker each, for stages whose handlers block."`
}

// DefaultSettings serve localhost from ./data.
func DefaultSettings() *Settings {
	return &Settings{
		Domains: []string{"localhost"},
		Data:    "data",
		Log:     LogSettings{Level: "info", Format: "text"},
		Cluster: ClusterSettings{NATS: NATSSettings{Prefix: "parley"}, Lease: 6 * time.Second},
		Storage: StorageSettings{Driver: "sqlite", Readers: 4, MaxConns: 16, Timeout: 10 * time.Second, Files: FilesSettings{Kind: "disk", Reserve: 256 << 20, S3: S3Settings{Region: "us-east-1"}}, Encryption: EncryptionSettings{Enabled: true}},
	}
}

// leastMemory is what a house needs for itself.
const leastMemory = 64 << 20

// Validate implements config.Validator.
func (s *Settings) Validate() error {
	if s.Data == "" {
		return config.Key("data", "name a directory: accounts, keys and the administration socket are in it")
	}
	if s.Memory != 0 && s.Memory < leastMemory {
		return config.Key("memory", "must be 0 or at least %s", config.Size(leastMemory))
	}
	if key := s.Cluster.NATS.chosen(); key != "" && s.Storage.Driver != "postgres" {
		return config.Key(natsKey(key), "several nodes need one database: set storage.driver to postgres")
	}
	for _, d := range s.Domains {
		j, err := jid.Parse(d)
		if err != nil || !j.IsDomain() {
			return config.Key("domains", "%q is not a domain", d)
		}
	}
	return nil
}

// Clustered reports whether there are to be other nodes.
func (s *Settings) Clustered() bool { return s.Cluster.NATS.chosen() != "" }

// prepared returns the domains as addresses contain them (RFC 7622 §3.2).
func (s *Settings) prepared() []string {
	out := make([]string, 0, len(s.Domains))
	for _, d := range s.Domains {
		if j, err := jid.Parse(d); err == nil {
			out = append(out, j.Domain())
		}
	}
	return out
}

// Validate implements config.Validator.
func (s *StorageSettings) Validate() error {
	if s.Driver == "postgres" && s.DSN.IsZero() {
		return config.Key("dsn", "postgres needs a connection string (dsn, dsn_file or PARLEY_STORAGE_DSN)")
	}
	if s.Driver == "postgres" && strings.Contains(s.DSN.Reveal(), "://") {
		if _, err := url.Parse(s.DSN.Reveal()); err != nil { // the cause would show the password
			return config.Key("dsn", "is no connection string: postgres://USER@HOST:PORT/DATABASE; characters like @ : / %% in a password are written as %%40 and so on")
		}
	}
	return nil
}

// StorageConfig translates the section for storage.Open.
func (s *Settings) StorageConfig() storage.Config {
	c := storage.Config{Driver: s.Storage.Driver, Readers: s.Storage.Readers, MaxConns: s.Storage.MaxConns, StatementTimeout: s.Storage.Timeout}
	if c.Driver == "postgres" {
		c.DSN = s.Storage.DSN.Reveal()
		return c
	}
	c.Path = s.Storage.Path
	if c.Path == "" {
		c.Path = filepath.Join(s.Data, "parley.db")
	}
	return c
}

// serverSection is what every Server's section has besides its own keys: the
// struct given by the ServerMaker holds it as a field named Deployment.
const deploymentKey = "deployment"

// Schema is the whole configuration of a house with these plugins.
func Schema(all []Plugin) (*config.Schema, error) {
	s := config.NewSchema()
	s.Root(DefaultSettings())
	for _, p := range all {
		if p.Serve != nil {
			s.Server(p.Serve.Name, p.Doc, p.Serve.Defaults)
		}
	}
	for _, p := range all {
		for _, m := range p.Components {
			var opts []config.Option
			if m.Off {
				opts = append(opts, config.DefaultOff())
			}
			s.Component(m.Server, m.name(p), p.Doc, m.Defaults, opts...)
		}
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("configuration structs: %w", err)
	}
	return s, nil
}

func (m Maker) name(p Plugin) string {
	if m.Name != "" {
		return m.Name
	}
	return p.Name
}
