package all_test

import (
	"slices"
	"strings"
	"testing"

	frame "parley/plugins"
	"parley/plugins/plugintest"
)

// A key that each node has for itself is set on that node alone, and is so after
// its restart.
func TestOwnKeys(t *testing.T) {
	ctx, m := manage(t, 2)
	m.followed(m.set(ctx, 0, "place", "@verona"))
	m.followed(m.set(ctx, 1, "place", "@mantua"))
	m.followed(m.set(ctx, 1, "word", "second"))
	check := func() {
		t.Helper()
		if one, two := m.at("node1"), m.at("node2"); one != "second@verona" || two != "second@mantua" {
			t.Errorf("the nodes say %s and %s", one, two)
		}
	}
	check()
	log, err := m.control(0).ConfigLog(ctx, 10)
	if err != nil || len(log) != 3 || log[0].Own || !log[1].Own || log[1].Node != "node2" || !log[2].Own {
		t.Errorf("the log says %+v (%v)", log, err)
	}
	if err := m.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	check()
	m.followed(m.control(0).Unset(ctx, "juliet", obstinatePath+".place"))
	if one, two := m.at("node1"), m.at("node2"); one != "second" || two != "second@mantua" {
		t.Errorf("after one is taken back the nodes say %s and %s", one, two)
	}
}

// One node alone, on SQLite: what was said of a component stays so after a
// restart, until it is taken back.
func TestStoppedStaysStopped(t *testing.T) {
	ctx, m := manage(t, 1)
	if _, err := m.control(0).Stop(ctx, "juliet", "processor", "ping"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.control(0).Uninstall(ctx, "juliet", "processor", "version"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.set(ctx, 0, "place", "@verona"); err != nil {
		t.Fatal(err)
	}
	if err := m.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	m.expect("ping", frame.Installed, 0)
	m.expect("version", frame.Absent, 0)
	if got := m.at("test"); got != "first@verona" {
		t.Errorf("it says %s", got)
	}
	nodes, err := m.control(0).ConfigNodes(ctx)
	if err != nil || len(nodes) != 1 || nodes[0].Version != 3 || nodes[0].Node != "test" {
		t.Errorf("%+v (%v)", nodes, err)
	}
	a, err := m.control(0).Unset(ctx, "juliet", "servers.processor.components.ping")
	if err != nil || !slices.Equal(a.Keys, []string{"servers.processor.components.ping"}) {
		t.Errorf("%+v (%v)", a, err)
	}
	if _, err := m.control(0).Reconfigure(ctx, "juliet", "processor", "version", map[string]string{"enabled": "true"}); err != nil {
		t.Fatal(err) // says last whether it is at work
	}
	m.expect("ping", frame.Running, 0)
	m.expect("version", frame.Running, 0)
}

// What was said of a component wins over the file, and a reload says so; when it
// is taken back the file counts.
func TestReloadUnderWhatWasSaid(t *testing.T) {
	file := ""
	ctx, m := manage(t, 1, func(o *plugintest.Options) { o.Node = func(int) string { return file } })
	if _, err := m.control(0).Stop(ctx, "juliet", "processor", "ping"); err != nil {
		t.Fatal(err)
	}
	file = "servers: {processor: {components: {ping: {enabled: false}}}}"
	changes, err := m.control(0).Reload(ctx)
	if err != nil || len(changes) != 1 || changes[0].Outcome != "overridden" || !strings.Contains(changes[0].Detail, "juliet") {
		t.Errorf("%+v (%v)", changes, err)
	}
	m.expect("ping", frame.Installed, 0)
	if _, err := m.control(0).Unset(ctx, "juliet", "servers.processor.components.ping"); err != nil {
		t.Fatal(err)
	}
	m.expect("ping", frame.Absent, 0)
}
