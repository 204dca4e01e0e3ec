package privilege_test

import (
	"testing"

	"parley/plugins/all"
	"parley/plugins/plugintest"
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

func TestScripts(t *testing.T) {
	plugintest.ComponentScripts(t, all.Plugins(), section, "testdata/component/*.txtar")
}
