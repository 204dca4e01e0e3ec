package all_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"parley/plugins/all"
	"parley/plugins/plugintest"
	"parley/plugins/plugintest/script"
	"parley/storage"
	"parley/storage/storagetest"
)

const workers = "servers: {parser: {deployment: {workers: 2}}, processor: {deployment: {workers: 4}}, router: {deployment: {workers: 2}}, streamer: {deployment: {workers: 2}}}"

// expectLimit only ends a script that fails. It is longer than a BOSH client that has
// gone may go unnoticed.
const expectLimit = 20 * time.Second

// quickBOSH takes a client whose connection is dropped for gone as soon as the scripts want it.
const quickBOSH = "servers: {streamer: {components: {bosh: {inactivity: 5s}}}}"

// deployments are the houses in which every script has to hold.
var deployments = []struct {
	name string
	opt  plugintest.Options
	via  script.Via
	pg   bool
	only string // scripts; empty: all
	soak bool   // left to make soak
}{
	{name: "local"},
	{name: "queues", opt: plugintest.Options{Config: workers}},
	{name: "seam", opt: plugintest.Options{Seam: true}},
	{name: "postgres", pg: true},
	{name: "direct-tls", via: script.ViaDirectTLS},
	{name: "websocket", via: script.ViaWebSocket},
	{name: "bosh", opt: plugintest.Options{Config: quickBOSH}, via: script.ViaBOSH},
	{name: "front-core", opt: plugintest.Options{Fronts: 1, Cores: 1}, pg: true},
	{name: "bosh-front-core", opt: plugintest.Options{Fronts: 1, Cores: 1, Config: quickBOSH}, pg: true, via: script.ViaBOSH, only: "../message/testdata/*.txtar"},
	{name: "nodes", opt: plugintest.Options{Nodes: 3}, pg: true},
	{name: "jitter", opt: plugintest.Options{Nodes: 3, Jitter: 4 * time.Millisecond}, pg: true, soak: true},
	{name: "mesh", opt: plugintest.Options{Nodes: 3, Mesh: true}, pg: true, only: "../message/testdata/*.txtar"},
}

// TestSuite runs every protocol script of the house in each deployment. Plain `go
// test` runs them with every stage behind a network, because the features run
// their own scripts in the local house; make test runs them all (PARLEY_TEST_SUITE=1),
// and make soak where everything that may overtake does (PARLEY_TEST_SUITE=soak).
func TestSuite(t *testing.T) {
	suite := os.Getenv("PARLEY_TEST_SUITE")
	for _, d := range deployments {
		if d.soak && suite != "soak" {
			t.Logf("%s: left to make soak (PARLEY_TEST_SUITE=soak)", d.name)
			continue
		}
		if d.name != "seam" && suite == "" {
			t.Logf("%s: left to make test (PARLEY_TEST_SUITE=1)", d.name)
			continue
		}
		t.Run(d.name, func(t *testing.T) {
			o := d.opt
			o.Plugins = all.Plugins()
			if d.pg {
				c := storagetest.Postgres(t)
				o.Storage = func() storage.Config { return c }
			}
			house := plugintest.Start(t, o)
			r := &script.Runner{Target: house, Via: d.via, Timeout: expectLimit}
			if o.Nodes > 1 || o.Fronts > 0 {
				r.Target = plugintest.Spread{House: house}
			}
			// External components have a door of their own; their tests bring it.
			globs := []string{"../*/testdata/*.txtar"}
			if d.via == script.ViaSTARTTLS { // scripts about streams choose their own doors
				globs = append(globs, "../../stream/testdata/*.txtar", "../../stream/websocket/testdata/*.txtar")
			}
			if d.only != "" {
				globs = []string{d.only}
			}
			for _, glob := range globs {
				if found, _ := filepath.Glob(glob); len(found) > 0 {
					script.Test(t, r, glob)
				}
			}
		})
	}
}
