package all_test

import (
	"strings"
	"testing"

	frame "parley/plugins"
	"parley/plugins/plugintest"
)

// A node that cannot follow is named, keeps what it has, and keeps nobody from
// following; it follows by itself when it can.
func TestNodeThatCannotFollowIsNamed(t *testing.T) {
	ctx, m := manage(t, 3)
	m.refuse("node2", "bad")
	a, err := m.set(ctx, 0, "word", "bad")
	if err != nil || len(a.Behind) != 1 || a.Behind[0].Node != "node2" || !strings.Contains(a.Behind[0].Why, "not that word") {
		t.Fatalf("%+v, %v", a, err)
	}
	if one, two, three := m.at("node1"), m.at("node2"), m.at("node3"); one != "bad" || two != "first" || three != "bad" {
		t.Errorf("the nodes say %s, %s, %s", one, two, three)
	}
	if s := m.status(1, "obstinate"); s.Phase != frame.Running || !strings.Contains(s.Error, "not that word") {
		t.Errorf("it shows %+v", s)
	}
	told, err := m.control(2).ConfigNodes(ctx)
	if err != nil || len(told) != 3 || !strings.Contains(told[1].Error, "not that word") || told[0].Error+told[2].Error != "" {
		t.Errorf("a third node hears %+v (%v)", told, err)
	}
	if got := gauge(t, m.DoorOf(1, "http"), "parley_config_behind"); got != "1" {
		t.Errorf("it counts %s components", got)
	}

	m.refuse("node2", "") // whatever was missing there is mended
	eventually(ctx, t, "it follows", func() bool { return m.at("node2") == "bad" && m.status(1, "obstinate").Error == "" })

	m.refuse("node2", "worse")
	if a, err := m.set(ctx, 1, "word", "worse"); err == nil || a.Version != 0 {
		t.Errorf("what does not work where it is made was taken: %+v", a)
	}
	if one, two := m.at("node1"), m.at("node2"); one != "bad" || two != "bad" {
		t.Errorf("the nodes say %s, %s after that was refused", one, two)
	}
	if s := m.status(1, "obstinate"); s.Phase != frame.Running || s.Error != "" {
		t.Errorf("it shows %+v", s)
	}
}

// A node whose file does not go with what was set is named; it stays with what
// it has, and cannot change anything, until that is mended.
func TestNodeThatRefusesIsNamed(t *testing.T) {
	ctx, m := manage(t, 2, func(o *plugintest.Options) {
		o.Node = func(i int) string {
			if i == 0 {
				return ""
			}
			return "servers: {processor: {components: {obstinate: {max: 6}}}}"
		}
	})
	a, err := m.set(ctx, 0, "word", "very long")
	if err != nil || len(a.Behind) != 1 || a.Behind[0].Node != "node2" || !strings.Contains(a.Behind[0].Why, "too long") {
		t.Fatalf("%+v, %v", a, err)
	}
	if one, two := m.at("node1"), m.at("node2"); one != "very long" || two != "first" {
		t.Errorf("the nodes say %s, %s", one, two)
	}
	if _, err := m.control(1).Stop(ctx, "juliet", "processor", "ping"); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("it made a version on one that it cannot take: %v", err)
	}
	m.followed(m.set(ctx, 0, "word", "short"))
	if two := m.at("node2"); two != "short" {
		t.Errorf("it says %s", two)
	}
	m.followed(m.control(1).Stop(ctx, "juliet", "processor", "ping"))
}

// A node that does not answer is named, and follows when it is back.
func TestNodeThatDoesNotAnswerIsNamed(t *testing.T) {
	ctx, m := manage(t, 2)
	hold := make(chan struct{})
	m.mu.Lock()
	m.hold["node2"] = hold
	m.mu.Unlock()
	a, err := m.set(ctx, 0, "word", "second")
	close(hold)
	if err != nil || len(a.Behind) != 1 || a.Behind[0].Node != "node2" || !strings.Contains(a.Behind[0].Why, "has not answered") {
		t.Errorf("%+v, %v", a, err)
	}
	eventually(ctx, t, "it follows", func() bool { return m.at("node2") == "second" })
}
