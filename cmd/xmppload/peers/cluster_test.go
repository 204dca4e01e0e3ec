//go:build linux

package peers

import (
	"os"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
)

// The template makes of a node what its role says (docs/cluster.md).
func TestNodeConfiguration(t *testing.T) {
	type server struct {
		Enabled    *bool `yaml:"enabled"`
		Deployment struct{ Type string }
	}
	off := func(s server) bool { return s.Enabled != nil && !*s.Enabled }
	for _, c := range []struct {
		role                           Role
		streamer, processor, router    bool // switched off
		streamers, processors, routers string
	}{
		{role: Alone},
		{role: Whole, streamers: "distributed", routers: "distributed"},
		{role: Front, processor: true, router: true, streamers: "distributed", routers: "distributed"},
		{role: Core, streamer: true, streamers: "distributed", processors: "distributed", routers: "distributed"},
	} {
		n := Node{Role: c.role}
		if c.role != Alone {
			n.Name, n.NATS, n.Lease = "n1", 4222, 6*time.Second
		}
		file, err := configure(Config{Dir: t.TempDir(), Port: 5222, Archive: "postgres", DB: Database{URL: "postgres://x"}, Node: n}, "parley.yaml")
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Node    string
			Cluster struct {
				Lease time.Duration
				NATS  struct{ URLs []string } `yaml:"nats"`
			}
			Servers struct{ Streamer, Processor, Router server }
		}
		if err := yaml.Unmarshal(text, &got); err != nil {
			t.Fatalf("%s: %v\n%s", c.role, err, text)
		}
		s := got.Servers
		if off(s.Streamer) != c.streamer || off(s.Processor) != c.processor || off(s.Router) != c.router ||
			s.Streamer.Deployment.Type != c.streamers || s.Processor.Deployment.Type != c.processors || s.Router.Deployment.Type != c.routers ||
			got.Node != n.Name || got.Cluster.Lease != n.Lease || (len(got.Cluster.NATS.URLs) == 1) != (n.NATS > 0) {
			t.Errorf("%s:\n%s", c.role, text)
		}
	}
}
