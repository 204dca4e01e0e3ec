package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type rootConfig struct {
	Domains []string        `yaml:"domains" doc:"The domains this server answers for." min:"1"`
	Data    string          `yaml:"data" doc:"The folder of everything that lasts."`
	Log     logConfig       `yaml:"log" doc:"What is logged." reload:"live"`
	Storage storageConfig   `yaml:"storage" doc:"The database." overlay:"no"`
	Hosts   map[string]Size `yaml:"hosts" doc:"Quota of each domain." max:"3"`
}

type logConfig struct {
	Level  string `yaml:"level" doc:"How much." enum:"debug,info,warn,error"`
	Format string `yaml:"format" doc:"How." enum:"text,json" reload:"restart"`
}

type storageConfig struct {
	Driver string `yaml:"driver" doc:"Which database." enum:"sqlite,postgres"`
	DSN    Secret `yaml:"dsn" doc:"How to reach Postgres."`
	hidden int
}

func (c *storageConfig) Validate() error {
	if c.Driver == "postgres" && c.DSN.IsZero() {
		return errors.Join(Key("dsn", "is needed for postgres"))
	}
	return nil
}

type streamConfig struct {
	Deployment deployment          `yaml:"deployment" doc:"Where it runs."`
	Listeners  map[string]listener `yaml:"listeners" doc:"What listens where."`
}

type deployment struct {
	Type    string `yaml:"type" doc:"Local or distributed." enum:"local,distributed"`
	Workers int    `yaml:"workers" doc:"Shards." unit:"goroutines" min:"0" max:"64"`
}

type listener struct {
	Address string         `yaml:"address" doc:"Where it listens." min:"1"`
	TLS     string         `yaml:"tls" doc:"When TLS begins." enum:"direct,start,none"`
	Allow   []netip.Prefix `yaml:"allow" doc:"Who may connect."`
}

func (l *listener) SetDefaults() { l.TLS = "start" }

type rosterConfig struct {
	MaxItems int           `yaml:"max_items" doc:"Items per roster." unit:"items" min:"1" max:"100000"`
	Idle     time.Duration `yaml:"idle" doc:"When it is forgotten." min:"1s"`
	Cache    Size          `yaml:"cache" doc:"Memory for rosters." reload:"restart"`
	Ratio    float64       `yaml:"ratio" doc:"A share." min:"0" max:"1"`
	limits   `yaml:",inline"`
}

type limits struct {
	Burst uint16 `yaml:"burst" doc:"Pushes at once."`
}

func (c *rosterConfig) Validate() error {
	if c.Idle > time.Hour && c.Cache == 0 {
		return fmt.Errorf("a long idle time needs a cache")
	}
	return nil
}

func testSchema(t testing.TB) *Schema {
	t.Helper()
	s := NewSchema()
	s.Root(&rootConfig{
		Domains: []string{"localhost"}, Data: "./data",
		Log: logConfig{"info", "text"}, Storage: storageConfig{Driver: "sqlite", hidden: 7},
	})
	s.Server("streamer", "Sockets.", &streamConfig{Deployment: deployment{Type: "local"},
		Listeners: map[string]listener{"c2s": {Address: ":5222", TLS: "start"}}})
	s.Server("processor", "Stanzas.", nil)
	s.Component("streamer", "register", "Registration.", nil, DefaultOff())
	s.Component("processor", "roster", "Contacts.", &rosterConfig{MaxItems: 1000, Idle: 5 * time.Minute, Cache: 1 << 20, limits: limits{3}})
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	return s
}

func mustParse(t testing.TB, text string, in Inputs) *Tree {
	t.Helper()
	tree, err := Parse(testSchema(t), "p.yaml", []byte(text), in)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

const good = `
domains: [example.org, "xn--1.example"]
log: {level: debug}
hosts:
  example.org: 10MB
servers:
  streamer:
    listeners:
      c2s: {address: "127.0.0.1:5222"}
      tls:
        address: :5223
        tls: direct
        allow: [10.0.0.0/8]
  processor:
    components:
      roster:
        max_items: 5000
        idle: 1d
        burst: 9
`

func TestDecode(t *testing.T) {
	tree := mustParse(t, good, Inputs{})
	root, err := Get[rootConfig](tree, "")
	if err != nil {
		t.Fatal(err)
	}
	if root.Storage.hidden != 7 || root.Hosts["example.org"] != 10e6 || root.Domains[1] != "xn--1.example" || root.Log.Format != "text" {
		t.Errorf("root: %+v", root)
	}
	roster, err := Get[rosterConfig](tree, ComponentPath("processor", "roster"))
	if err != nil {
		t.Fatal(err)
	}
	if want := (rosterConfig{MaxItems: 5000, Idle: day, Cache: 1 << 20, limits: limits{9}}); roster != want {
		t.Errorf("roster: %+v, want %+v", roster, want)
	}
	var stream streamConfig
	if err := tree.Section(ServerPath("streamer")).Decode(&stream); err != nil {
		t.Fatal(err)
	}
	want := map[string]listener{
		"c2s": {Address: "127.0.0.1:5222", TLS: "start"},
		"tls": {Address: ":5223", TLS: "direct", Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
	}
	if diff := cmp.Diff(want, stream.Listeners, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	root.Domains[0], stream.Listeners["c2s"] = "changed", listener{}
	if again, _ := Get[rootConfig](tree, ""); again.Domains[0] != "example.org" {
		t.Error("a decoded list is shared with the tree")
	}
	if size, err := Get[Size](tree, `hosts."example.org"`); err != nil || size != 10e6 {
		t.Error(size, err)
	}
	if !tree.Enabled("processor", "roster") || tree.Enabled("streamer", "register") || tree.Enabled("streamer", "nothing") ||
		!tree.ServerEnabled("processor") || tree.ServerEnabled("media") {
		t.Error("enabled")
	}
	for path, into := range map[string]any{"data": new(int), "servers": new(struct{}), "nothing": new(int), "log": logConfig{}} {
		if tree.Decode(path, into) == nil {
			t.Errorf("decode %s into %T: no error", path, into)
		}
	}
	if err := tree.Decode(ComponentPath("streamer", "register"), &struct{}{}); err != nil {
		t.Error(err)
	}
}

func TestRemoveEntry(t *testing.T) {
	tree := mustParse(t, "servers: {streamer: {listeners: {c2s: false, x: {address: :1}}}}", Inputs{})
	got, err := Get[streamConfig](tree, ServerPath("streamer"))
	if _, has := got.Listeners["c2s"]; err != nil || has || got.Listeners["x"].TLS != "start" {
		t.Error(got, err)
	}
}

func TestShow(t *testing.T) {
	at := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	tree := mustParse(t, good+"storage: {dsn_file: dsn.txt}\n", Inputs{
		Environ:  []string{"PATH=/bin", "PARLEY_DATA=/srv", "PARLEY_TEST_X=1", "PARLEY_SERVERS_STREAMER_LISTENERS_C2S_ADDRESS=:1"},
		Flags:    []Flag{{"domain", "domains", "a.example, b.example"}},
		Overlay:  Overlay{3, []Setting{{"servers.processor.components.roster.max_items", "7", 3, "admin", at}}},
		ReadFile: func(string) ([]byte, error) { return []byte("postgres://u:hunter2@db\n"), nil },
	})
	var b strings.Builder
	for _, e := range tree.Show() {
		fmt.Fprintf(&b, "%s = %s  # %s\n", e.Path, e.Value, e.Source)
	}
	golden(t, "show.txt", b.String())
	if strings.Contains(b.String(), "hunter2") {
		t.Error("a secret is shown")
	}
	if dsn, err := Get[Secret](tree, "storage.dsn"); err != nil || dsn.Reveal() != "postgres://u:hunter2@db" {
		t.Error(dsn.Reveal(), err)
	}
}

func TestDoc(t *testing.T) {
	schema := testSchema(t)
	text, err := Doc(schema)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "doc.yaml", text)
	documented, err := Parse(schema, "doc.yaml", []byte(text), Inputs{})
	if err != nil {
		t.Fatalf("the documentation is no configuration: %v", err)
	}
	empty := mustParse(t, "", Inputs{})
	if changes := Diff(empty, documented); len(changes) != 0 {
		t.Errorf("the documentation is not the defaults: %+v", changes)
	}
	for _, e := range empty.Show() {
		segments, _ := splitPath(e.Path)
		if key := segments[len(segments)-1]; !strings.Contains(text, key+":") {
			t.Errorf("%s is not documented", e.Path)
		}
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "parley.yaml"), "storage: {driver: postgres, dsn_file: secrets/dsn}\n")
	write(t, filepath.Join(dir, "secrets/dsn"), " postgres://x \n")
	tree, err := Load(testSchema(t), filepath.Join(dir, "parley.yaml"), Inputs{})
	if err != nil {
		t.Fatal(err)
	}
	if dsn, _ := Get[Secret](tree, "storage.dsn"); dsn.Reveal() != "postgres://x" {
		t.Errorf("dsn %q", dsn.Reveal())
	}
	if _, err := Load(testSchema(t), filepath.Join(dir, "none.yaml"), Inputs{}); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if _, err := Load(testSchema(t), "", Inputs{}); err != nil {
		t.Error(err)
	}
	if _, err := readSecret(dir); err == nil {
		t.Error("a folder is read as a secret")
	}
}

func TestSchemaErrors(t *testing.T) {
	type loop struct {
		In []struct{ X int } `yaml:"in" doc:"."`
	}
	for name, build := range map[string]func(*Schema){
		"no doc": func(s *Schema) {
			s.Root(&struct {
				A int `yaml:"a"`
			}{})
		},
		"no tag": func(s *Schema) { s.Root(&struct{ A int }{}) },
		"type": func(s *Schema) {
			s.Root(&struct {
				A chan int `yaml:"a" doc:"."`
			}{})
		},
		"list of struct": func(s *Schema) { s.Root(&loop{}) },
		"reload": func(s *Schema) {
			s.Root(&struct {
				A int `yaml:"a" doc:"." reload:"x"`
			}{})
		},
		"bound": func(s *Schema) {
			s.Root(&struct {
				A time.Duration `yaml:"a" doc:"." min:"x"`
			}{})
		},
		"reserved": func(s *Schema) {
			s.Server("a", "", &struct {
				A bool `yaml:"enabled" doc:"."`
			}{})
		},
		"twice":      func(s *Schema) { s.Server("a", "", nil); s.Server("a", "", nil) },
		"no server":  func(s *Schema) { s.Component("a", "b", "", nil) },
		"no pointer": func(s *Schema) { s.Root(limits{}) },
	} {
		s := NewSchema()
		build(s)
		if s.Err() == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := Parse(s, "", nil, Inputs{}); err == nil {
			t.Errorf("%s: parsed", name)
		}
	}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte(text), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// golden compares with testdata/NAME; UPDATE_GOLDEN=1 writes it anew.
func golden(t *testing.T, name, got string) {
	t.Helper()
	name = filepath.Join("testdata", name)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		write(t, name, got)
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (- want, + got):\n%s", name, diff)
	}
}
