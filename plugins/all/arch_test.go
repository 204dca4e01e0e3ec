package all_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// layer is a set of packages and what of this module they may import.
type layer struct {
	packages string   // a package, or a folder with /...
	may      []string // further layers, by the same names
}

// layers is the house's rule that imports point one way, as a table. What is
// not listed may not import anything of this module.
var layers = []layer{
	{"parley/parser/jid", nil},
	{"parley/parser/stanza", []string{"parley/parser/jid"}},
	{"parley/parser/stanza/...", []string{"parley/parser/jid"}},
	{"parley/storage/...", nil},
	{"parley/stream/sasl", []string{"parley/parser/jid"}},
	{"parley/stream/web", nil},
	{"parley/plugins/config", nil},
	{"parley/plugins/message/kinds", []string{"parley/parser/jid", "parley/parser/stanza", "parley/router/delivery"}},
	{"parley/router/sessions", []string{"parley/parser/jid"}},
	{"parley/router/delivery", []string{"parley/parser/jid", "parley/parser/stanza", "parley/router/sessions"}},
	{"parley/router/channel", []string{"parley/parser/jid", "parley/parser/stanza", "parley/router/sessions"}},
	{"parley/router/channel/nats", nil},
	{"parley/router/channel/nats/embedded", nil},
	{"parley/router/cluster", []string{"parley/parser/jid", "parley/storage/...", "parley/router/channel", "parley/router/channel/nats", "parley/router/sessions"}},
	{"parley/router/cluster/owner", []string{"parley/storage/...", "parley/router/channel/nats", "parley/router/cluster"}},
	{"parley/plugins", []string{"parley/parser/jid", "parley/storage/...", "parley/plugins/config", "parley/router/channel", "parley/router/channel/nats/...", "parley/router/cluster", "parley/router/cluster/owner", "parley/router/sessions"}},
	{"parley/parser", stageMay},
	{"parley/processor", append(stageMay, "parley/router/delivery")},
	{"parley/router", append(stageMay, "parley/router/delivery")},
	{"parley/stream", append(stageMay, "parley/stream/sasl", "parley/plugins/config")},
}

// stageMay is what every stage may import; never another stage, never a feature.
var stageMay = []string{"parley/parser/jid", "parley/parser/stanza", "parley/storage/...", "parley/plugins", "parley/router/channel", "parley/router/cluster/owner", "parley/router/sessions"}

// vocabulary are leaves that say what a stanza is, or read what is in many of
// them; every feature may speak it.
var vocabulary = []string{"parley/plugins/message/kinds", "parley/parser/stanza/command", "parley/parser/stanza/form", "parley/parser/stanza/rsm"}

// free may import everything: the lists, the tests' tools and the programs.
var free = []string{"parley/plugins/all", "parley/plugins/plugintest/...", "parley/cmd/..."}

// stages are what a feature may build on, besides the frame.
var stages = []string{"parley/parser", "parley/processor", "parley/router", "parley/router/delivery", "parley/stream", "parley/stream/sasl", "parley/stream/web", "parley/plugins/config"}

func within(pkg, pattern string) bool {
	if base, ok := strings.CutSuffix(pattern, "/..."); ok {
		return pkg == base || strings.HasPrefix(pkg, base+"/")
	}
	return pkg == pattern
}

func anyOf(pkg string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return within(pkg, p) })
}

func TestArchImportsPointOneWay(t *testing.T) {
	for pkg, imports := range list(t) {
		if anyOf(pkg, free) {
			continue
		}
		i := slices.IndexFunc(layers, func(l layer) bool { return within(pkg, l.packages) })
		for _, imp := range imports {
			switch {
			case within(imp, pkg+"/..."): // its own inner packages
			case i >= 0 && (within(imp, layers[i].packages) || anyOf(imp, layers[i].may)):
			case i < 0 && anyOf(imp, slices.Concat(stages, stageMay, vocabulary)):
			case i < 0 && (strings.HasPrefix(imp, "parley/plugins/") || strings.HasPrefix(imp, "parley/stream/")) && required(t, pkg, imp):
			default:
				t.Errorf("%s must not import %s", pkg, imp)
			}
		}
	}
}

// required reports whether the feature imp is named in Requires by the feature
// that pkg belongs to.
func required(t *testing.T, pkg, imp string) bool {
	own, other := feature(pkg), feature(imp)
	if own == other {
		return true
	}
	for _, p := range plugins() {
		if p.Name == own {
			return slices.Contains(p.Requires, other)
		}
	}
	t.Logf("%s: feature %s is not in plugins/all", pkg, own)
	return false
}

// feature is the plugin a package belongs to: plugins/<feature>/… or
// stream/<feature>.
func feature(pkg string) string {
	parts := strings.Split(pkg, "/")
	return parts[min(2, len(parts)-1)]
}

func list(t *testing.T) map[string][]string {
	t.Helper()
	cmd := exec.Command("go", "list", "-f", `{{.ImportPath}} {{join .Imports " "}}`, "parley/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	pkgs := map[string][]string{}
	for l := range strings.Lines(string(out)) {
		f := strings.Fields(l)
		pkgs[f[0]] = nil
		for _, imp := range f[1:] {
			if strings.HasPrefix(imp, "parley/") {
				pkgs[f[0]] = append(pkgs[f[0]], imp)
			}
		}
	}
	return pkgs
}
