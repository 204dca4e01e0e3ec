package privilege_test

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
          mute.localhost: {secret: s3cret}
          say.localhost: {secret: s3cret, privileges: {message: outgoing}}
          get.localhost: {secret: s3cret, privileges: {roster: get, no_push: true}}
          ask.localhost: {secret: s3cret, privileges: {iq: {"jabber:iq:private": both, "urn:xmpp:ping": get}}}
          all.localhost: {secret: s3cret, privileges: {roster: both, message: outgoing, presence: managed_entity, iq: {"jabber:iq:private": get, "jabber:iq:roster": none}}}
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

// Accounts are on other nodes than the component.
func TestScriptsOnNodes(t *testing.T) {
	c := storagetest.Postgres(t)
	h := plugintest.Start(t, plugintest.Options{Plugins: all.Plugins(), Config: section, Nodes: 2, Storage: func() storage.Config { return c }})
	script.Test(t, &script.Runner{Target: plugintest.Components(h)}, scripts)
}
