package delegation_test

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
          del.localhost: {secret: s3cret, delegations: {"urn:x:delegated": {}, "urn:x:filtered": {attributes: [node]}}}
          ros.localhost: {secret: s3cret, delegations: {"jabber:iq:roster": {}}, privileges: {roster: both}}
          other.localhost: {secret: s3cret}
`

func TestScripts(t *testing.T) {
	plugintest.ComponentScripts(t, all.Plugins(), section, "testdata/component/*.txtar")
}
