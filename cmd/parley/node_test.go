package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"parley/plugins"
	"parley/plugins/plugintest"
	"parley/storage/storagetest"
)

func TestNodeAlone(t *testing.T) {
	s := serve(t, t.TempDir())
	contains(t, must(t, "node", "list", "--data", s.data), "NODE", "(asked)", "alive", "This node is alone")
	var c plugins.Cluster
	if err := json.Unmarshal([]byte(must(t, "node", "list", "--json", "--data", s.data)), &c); err != nil || !c.Alone || len(c.Nodes) != 1 || c.Nodes[0].Node != c.Node {
		t.Errorf("%+v (%v)", c, err)
	}
	for _, x := range []struct {
		args []string
		says string
	}{
		{[]string{"drain"}, "no other node"},
		{[]string{"drain", "nobody"}, "no such node"},
		{[]string{"undrain", "nobody"}, "no such node"},
		{[]string{"drain", "--pace", "fast"}, "--pace"},
		{[]string{"drain", "--pace", "0/s"}, "--pace"},
	} {
		_, _, err := parley(t, "", append(append([]string{"node"}, x.args...), "--data", s.data)...)
		if err == nil || !strings.Contains(err.Error(), x.says) {
			t.Errorf("%v: %v", x.args, err)
		}
	}
}

// TestNodeDrain: the command ends when nobody is left, the node then stops at
// once, and the other one can be asked as well.
func TestNodeDrain(t *testing.T) {
	dsn, url := storagetest.Postgres(t).DSN, plugintest.NATS(t)
	node := func(name string) *server {
		return serve(t, t.TempDir(), "--config", write(t, "parley.yaml", fmt.Sprintf(`
domains: [localhost]
node: %s
storage: {driver: postgres, dsn: %q}
cluster: {lease: 4s, nats: {urls: [%q]}}
servers:
  streamer: {deployment: {type: distributed}, timeouts: {drain: 2s, close: 1s}, tls: {plain_on_loopback: true}}
  router: {deployment: {type: distributed}}
`, name, dsn, url)))
	}
	one, two := node("node1"), node("node2")
	list := must(t, "node", "list", "--data", one.data)
	contains(t, list, "node1 (asked)", "node2 ")
	if strings.Contains(list, "alone") {
		t.Error(list)
	}
	const password = "wherefore art thou"
	if _, _, err := parley(t, password, "account", "add", "romeo@localhost", "--password-stdin", "--data", one.data); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := plugintest.Dial(ctx, one.doors["c2s"], "localhost", "romeo", password, "orchard")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	out, progress, err := parley(t, "", "node", "drain", "--pace", "50/s", "--data", one.data)
	if err != nil {
		t.Fatal(err)
	}
	contains(t, out, "node1: draining, 0 sessions")
	contains(t, progress, "node1: 1 sessions left")
	if _, err := plugintest.Connect(ctx, one.doors["c2s"], "localhost", "romeo", password); err == nil {
		t.Error("a node that drains lets clients in")
	}
	if _, _, err := parley(t, "", "node", "drain", "--data", two.data); err == nil || !strings.Contains(err.Error(), "no other node") {
		t.Errorf("the last node: %v", err)
	}
	contains(t, must(t, "node", "undrain", "node1", "--data", two.data), "node1: takes clients again")
	var n plugins.NodeStatus
	out = must(t, "node", "drain", "node1", "--wait", "--json", "--data", two.data)
	if err := json.Unmarshal([]byte(out), &n); err != nil || !n.Draining || n.Sessions != 0 {
		t.Errorf("%s (%v)", out, err)
	}
	one.stop()
	for list := "node1"; strings.Contains(list, "node1"); { // the others see it at their next look
		if list = must(t, "node", "list", "--data", two.data); ctx.Err() != nil {
			t.Fatalf("after its end:\n%s", list)
		}
	}
	if _, _, err := parley(t, "", "node", "drain", "node1", "--data", two.data); err == nil || !strings.Contains(err.Error(), "no such node") {
		t.Errorf("a node that has left: %v", err)
	}
}
