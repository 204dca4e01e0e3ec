package main

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"parley/plugins/config"
)

func TestConfigCheckPointsAtTheMistake(t *testing.T) {
	file := write(t, "parley.yaml", "domains: [example.org]\nservers:\n  streamer:\n    outbox: lots\n    components:\n      healt: {}\n")
	out, _, err := parley(t, "", "config", "check", file)
	if !errors.Is(err, errSaid) {
		t.Fatalf("got %v", err)
	}
	contains(t, out, "parley.yaml:4:13:", "    outbox: lots", "\n      |             ^", "parley.yaml:6:7:", "health")

	out, _, _ = parley(t, "", "config", "check", "--json", file)
	var found []finding
	if err := json.Unmarshal([]byte(out), &found); err != nil || len(found) != 2 || found[0].Line != 4 || found[0].Column != 13 {
		t.Errorf("as JSON: %s (%v)", out, err)
	}
	contains(t, must(t, "config", "check", write(t, "good.yaml", "domains: [example.org]\n")), "is right")
}

// What cannot start whatever is on the machine is not right.
func TestConfigCheckKnowsWhatCannotStart(t *testing.T) {
	for text, says := range map[string]string{
		"servers: {streamer: {c2s: 5222}}":                                              "HOST:PORT",
		"servers: {streamer: {https: 'localhost:999999'}}":                              "a number from 0 to 65535",
		"servers: {streamer: {tls: {certificate: /x}}}":                                 "needs its key",
		"servers: {streamer: {tls: {key: /x}}}":                                         "needs its certificate",
		"servers: {streamer: {tls: {acme: {http: x}}}}":                                 "HOST:PORT",
		"storage: {driver: postgres, dsn: 'postgres://u:sesame@h:port/db'}":             "no connection string",
		"storage: {driver: postgres, dsn: 'postgres://u:p@h1:5432,h2:5432/db'}":         "is right",
		"servers: {streamer: {tls: {certificate: /x, key: /x}, c2s: ':xmpp-client'}}":   "parley check",
		"storage: {driver: postgres, dsn: 'host=h user=u password=sesame dbname=d://'}": "",
	} {
		out, _, _ := parley(t, "", "config", "check", write(t, "parley.yaml", text+"\n"))
		if !strings.Contains(out, says) || strings.Contains(out, "sesame") {
			t.Errorf("%s: %s", text, out)
		}
	}
}

func TestConfigDocIsAConfiguration(t *testing.T) {
	contains(t, must(t, "config", "check", write(t, "doc.yaml", must(t, "config", "doc"))), "is right")
}

func TestConfigShowWithoutServer(t *testing.T) {
	file := write(t, "parley.yaml", "log:\n  level: warn\n")
	out, said, err := parley(t, "", "config", "show", "--changed", "--config", file, "--data", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	contains(t, said, "not running")
	contains(t, out, "log.level", "warn", "parley.yaml:2", "flag --data")
	if strings.Contains(out, "log.format") {
		t.Errorf("the default is shown as changed:\n%s", out)
	}
}

// TestExamples: the examples are complete files that load as they are, by the
// whole schema.
func TestExamples(t *testing.T) {
	for name, want := range map[string]map[string]string{
		"interop.yaml": {
			"servers.streamer.tls.plain_on_loopback":       "true",
			"servers.streamer.components.register.enabled": "true",
			"servers.streamer.rate.stanzas":                "0",
			"servers.streamer.rate.bytes":                  "0",
		},
		"cluster/node.yaml": {
			"servers.streamer.deployment.type":  "distributed",
			"servers.router.deployment.type":    "distributed",
			"servers.processor.deployment.type": "local",
			"cluster.lease":                     "6s",
		},
		"cluster/front.yaml": {
			"cluster.nats.certificate":         "/etc/parley/nats.pem", // as nats.conf wants it
			"servers.streamer.deployment.type": "distributed",
			"servers.processor.enabled":        "false",
			"servers.router.enabled":           "false",
		},
		"cluster/core.yaml": {
			"cluster.nats.certificate":          "/etc/parley/nats.pem",
			"servers.streamer.enabled":          "false",
			"servers.processor.deployment.type": "distributed",
			"servers.router.deployment.type":    "distributed",
		},
		"cluster/embedded.yaml": {
			"servers.streamer.deployment.type": "distributed",
			"cluster.nats.urls":                "[]",
			"cluster.nats.embedded.listen":     "10.0.0.1:6222",
		},
		"production.yaml": {
			"servers.streamer.tls.required":                "true",
			"servers.streamer.tls.plain_on_loopback":       "false",
			"servers.streamer.tls.acme.enabled":            "true",
			"servers.streamer.components.register.enabled": "false",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := read(filepath.Join("..", "..", "examples", name), nil)
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]config.Entry{}
			for _, e := range s.tree.Show() {
				got[e.Path] = e
			}
			for path, v := range want {
				if got[path].Value != v {
					t.Errorf("%s is %q, not %q", path, got[path].Value, v)
				}
			}
		})
	}
}

func TestFlagsWinOverTheFile(t *testing.T) {
	file := write(t, "parley.yaml", "domains: [file.example]\nservers: {streamer: {c2s: ':1', http: ':2'}}\n")
	cmd := root()
	var got *setup
	serve, _, err := cmd.Find([]string{"serve"})
	if err != nil {
		t.Fatal(err)
	}
	var p place
	serve.ResetFlags()
	p.common(serve)
	p.doors(serve)
	if err := serve.ParseFlags([]string{"--config", file, "--domain", "a.example", "--domain", "b.example", "--c2s", ":9", "--data", "elsewhere"}); err != nil {
		t.Fatal(err)
	}
	if got, err = p.load(serve); err != nil {
		t.Fatal(err)
	}
	c, err := streamConfig(got.tree)
	if err != nil {
		t.Fatal(err)
	}
	if s := got.settings; len(s.Domains) != 2 || s.Domains[1] != "b.example" || s.Data != "elsewhere" || c.C2S != ":9" || c.HTTP != ":2" {
		t.Errorf("domains %v, data %s, c2s %s, http %s", s.Domains, s.Data, c.C2S, c.HTTP)
	}
}

func TestVersion(t *testing.T) {
	contains(t, must(t, "version"), "parley ", "go1.")
	var b build
	if err := json.Unmarshal([]byte(must(t, "version", "--json")), &b); err != nil || b.Version == "" {
		t.Errorf("%+v %v", b, err)
	}
}
