package all_test

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	frame "parley/plugins"
	"parley/plugins/config"
	"parley/storage/storagetest"
)

// A node of a cluster that could not work is refused before it connects to
// anything, and told what to change.
func TestNodesThatCannotWorkAreRefused(t *testing.T) {
	const (
		s = "streamer: {deployment: {type: distributed}}"
		r = "router: {deployment: {type: distributed}}"
	)
	for servers, want := range map[string]string{
		s: "servers.router.deployment.type must be distributed",
		r: "servers.streamer.deployment.type must be distributed",
		s + ", " + r + ", parser: {deployment: {type: distributed}}":                                    "servers.parser.deployment.type must be local",
		s + ", " + r + ", processor: {enabled: false}":                                                  "servers.processor and servers.router are switched on together",
		s + ", router: {enabled: false}":                                                                "servers.processor and servers.router are switched on together",
		r + ", streamer: {enabled: false}":                                                              "servers.processor.deployment.type must be distributed where there is no streamer",
		s + ", " + r + ", parser: {enabled: false}":                                                     "servers.parser is switched off",
		"streamer: {enabled: false}, processor: {enabled: false}, router: {enabled: false}, parser: {}": "neither a streamer nor a processor",
	} {
		t.Run(servers, func(t *testing.T) {
			schema, err := frame.Schema(plugins())
			if err != nil {
				t.Fatal(err)
			}
			text := "domains: [localhost]\ndata: " + t.TempDir() + "\nstorage: {driver: postgres, dsn: 'postgres://unused'}\ncluster: {nats: {urls: ['nats://127.0.0.1:1']}}\nservers: {" + servers + "}\n"
			tree, err := config.Parse(schema, "parley.yaml", []byte(text), config.Inputs{})
			if err != nil {
				t.Fatal(err)
			}
			_, err = frame.New(t.Context(), frame.Options{
				Plugins: plugins(), Tree: tree, DB: storagetest.Open(t, storagetest.SQLite(t)), Log: slog.New(slog.DiscardHandler),
				Clock: frame.SystemClock{}, Metrics: prometheus.NewRegistry(), Version: "test", Node: "n",
			})
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v, want %q", err, want)
			}
		})
	}
}
