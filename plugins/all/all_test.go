package all_test

import (
	"testing"

	frame "parley/plugins"
	"parley/plugins/all"
)

func plugins() []frame.Plugin { return all.Plugins() }

func TestEveryPluginIsComplete(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range plugins() {
		if p.Name == "" || p.Doc == "" || seen[p.Name] {
			t.Errorf("plugin %q: a name of its own and a line of documentation are missing", p.Name)
		}
		seen[p.Name] = true
		for _, m := range p.Components {
			if m.Server == "" || m.New == nil {
				t.Errorf("plugin %s: maker without Server or New", p.Name)
			}
		}
	}
	if _, err := frame.Schema(plugins()); err != nil {
		t.Error(err)
	}
}
