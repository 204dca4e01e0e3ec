package delegation_test

import (
	"testing"

	"parley/plugins/all"
	"parley/plugins/plugintest"
	"parley/plugins/plugintest/script"
	"parley/storage"
	"parley/storage/storagetest"
)

const section = `
servers:
  streamer:
    components:
      component:
        address: 127.0.0.1:0
        components:
          del.localhost: {secret: s3cret, delegations: {"urn:x:delegated": {}, "urn:x:filtered": {attributes: [node]}}}
          ros.localhost: {secret: s3cret, delegations: {"jabber:iq:roster": {}}, privileges: {roster: both}}
          other.localhost: {secret: s3cret}
`

const scripts = "testdata/component/*.txtar"

func TestScripts(t *testing.T) {
	h := plugintest.Start(t, plugintest.Options{Plugins: all.Plugins(), Config: section})
	script.Test(t, &script.Runner{Target: plugintest.Components(h)}, scripts)
}

// The streamer, which has the components, and the processor are on different nodes.
func TestScriptsOnAFrontAndItsCore(t *testing.T) {
	c := storagetest.Postgres(t)
	h := plugintest.Start(t, plugintest.Options{Plugins: all.Plugins(), Config: section, Fronts: 1, Cores: 1, Storage: func() storage.Config { return c }})
	script.Test(t, &script.Runner{Target: plugintest.Components(h)}, scripts)
}

// Those who ask are on other nodes than the component.
func TestScriptsOnNodes(t *testing.T) {
	c := storagetest.Postgres(t)
	h := plugintest.Start(t, plugintest.Options{Plugins: all.Plugins(), Config: section, Nodes: 2, Storage: func() storage.Config { return c }})
	script.Test(t, &script.Runner{Target: plugintest.Components(h)}, scripts)
}
