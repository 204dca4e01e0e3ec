package config

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"
)

func TestErrors(t *testing.T) {
	cases := []struct {
		name, text string
		in         Inputs
	}{
		{name: "unknown key", text: "servers:\n  processor:\n    components:\n      roster:\n        max_item: 5\n"},
		{name: "unknown top level", text: "domain: localhost\n"},
		{name: "unknown far from everything", text: "zzzzzzzzzzz: {a: b}\n"},
		{name: "component of another server", text: "servers: {streamer: {components: {roster: {max_items: 1}}}}\n"},
		{name: "several", text: "log: {level: loud, format: xml}\nservers:\n  processor:\n    components:\n      roster: {max_items: 0, idle: 10, ratio: 2, burst: -1, cache: lots}\n"},
		{name: "duplicate", text: "data: a\nlog:\n  level: info\ndata: b\n"},
		{name: "tab", text: "log:\n\tlevel: info\n"},
		{name: "unclosed", text: "domains: [a, b\ndata: x\n"},
		{name: "unclosed with a secret", text: "storage: {dsn: \"hunter2, driver: sqlite}\n"},
		{name: "misspelt secret", text: "storage:\n  dns: postgres://u:hunter2@db\n"},
		{name: "wrong shape", text: "domains: localhost\nlog: info\ndata: [a]\nstorage: {driver: {a: b}}\nservers: [streamer]\n"},
		{name: "secret of a wrong shape", text: "storage: {dsn: [hunter2]}\n"},
		{name: "list item", text: "domains: [a, {b: c}]\n"},
		{name: "list value", text: "servers: {streamer: {listeners: {c2s: {allow: [10.0.0.0/8, all]}}}}\n"},
		{name: "no value", text: "data:\ndomains: []\n"},
		{name: "must be given", text: "servers:\n  streamer:\n    listeners:\n      x: {tls: direct}\n"},
		{name: "must be given, disabled", text: "servers: {streamer: {enabled: false, listeners: {x: {}}}}\ndata: [x]\n"},
		{name: "validate a key", text: "data: x\nstorage:\n  driver: postgres\n"},
		{name: "validate a section", text: "servers:\n  processor:\n    components:\n      roster: {idle: 2h, cache: 0}\n"},
		{name: "too many entries", text: "hosts: {a: 1, b: 2, c: 3, d: 4}\n"},
		{name: "anchors", text: "data: &x a\nlog: {level: *x}\nhosts: {<<: {a: 1}}\n"},
		{name: "tag", text: "data: !!str a\n"},
		{name: "two documents", text: "data: a\n---\ndata: b\n"},
		{name: "UTF-8", text: "data: a\nlog: {level: \"\xff\"}\n"},
		{name: "not a mapping", text: "- a\n"},
		{name: "long line", text: "hosts: {" + strings.Repeat("a123456: 1, ", 1) + strings.Repeat(" ", 200) + "b: x}\n"},
		{name: "both dsn and dsn_file", text: "storage:\n  dsn: hunter2\n  dsn_file: f\n"},
		{name: "both, the other way round", text: "storage:\n  dsn_file: f\n  dsn: hunter2\n", in: Inputs{ReadFile: func(string) ([]byte, error) { return []byte("x"), nil }}},
		{name: "secret file", text: "storage:\n  dsn_file: none\n"},
		{name: "environment", in: Inputs{Environ: []string{
			"PARLEY_STORAGE_DSM=x", "PARLEY_WHATEVER_ELSE_THERE_IS=x", "PARLEY_LOG_LEVEL=loud", "PARLEY_SERVERS_PROCESSOR_COMPONENTS_ROSTER_MAX_ITEMS=many",
			"PARLEY_TEST_ANYTHING=1", "PARLEY_SERVICE_HOST=10.0.0.1", "PARLEY_PORT=tcp://10.0.0.1:5222", "PARLEY_PORT_5222_TCP_ADDR=10.0.0.1"}}},
		{name: "ambiguous environment", text: "hosts: {a.b: 1, a_b: 2}", in: Inputs{Environ: []string{"PARLEY_HOSTS_A_B=3"}}},
		{name: "flags", in: Inputs{Flags: []Flag{{"c2s", "servers.streamer.listeners.c2s.adress", ":1"}, {"dsn", "storage.dsn", "hunter2"}, {"max", "servers.processor.components.roster.max_items", "0"}}}},
		{name: "overlay", in: Inputs{Overlay: Overlay{2, []Setting{
			{"log.level", "loud", 1, "admin", time.Unix(0, 0)}, {"storage.dsn", "hunter2", 2, "admin", time.Unix(0, 0)}}}}},
		{name: "validate across layers", text: "data: x\n", in: Inputs{Environ: []string{"PARLEY_STORAGE_DRIVER=postgres"}}},
	}
	var b strings.Builder
	for _, c := range cases {
		_, err := Parse(testSchema(t), "p.yaml", []byte(c.text), c.in)
		var found Findings
		if !errors.As(err, &found) {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		fmt.Fprintf(&b, "== %s\n%v\n", c.name, err)
	}
	golden(t, "errors.txt", b.String())
	if strings.Contains(b.String(), "hunter2") {
		t.Error("an error shows a secret")
	}
}

func TestAccepted(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "comments": "# nothing\n", "empty sections": "log:\nservers:\n  streamer:\n    components:\n",
		"byte order mark": "\ufeffdata: x\n", "CRLF": "data: x\r\nlog:\r\n  level: info\r\n", "number as text": "data: 12\n",
		"null document": "---\n", "literal": "data: |-\n  x\n", "Kubernetes": "data: x\n", "disabled": "servers: {processor: {components: {roster: {enabled: false, idle: 2h, cache: 0}}}}\n",
	} {
		if _, err := Parse(testSchema(t), "p.yaml", []byte(text), Inputs{}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEnvironment(t *testing.T) {
	tree := mustParse(t, good, Inputs{Environ: []string{
		"PARLEY_DOMAINS=[c.example]", "PARLEY_STORAGE_DSN=hunter2", "PARLEY_HOSTS={new.example: 5}", "PARLEY_HOSTS_EXAMPLE_ORG=1KiB",
		"PARLEY_SERVERS_STREAMER_COMPONENTS_REGISTER_ENABLED=true", "PARLEY_SERVERS_STREAMER_LISTENERS_TLS_ALLOW=::/0, 10.0.0.0/8",
	}})
	root, err := Get[rootConfig](tree, "")
	if err != nil || root.Domains[0] != "c.example" || root.Storage.DSN.Reveal() != "hunter2" || root.Hosts["new.example"] != 5 || root.Hosts["example.org"] != 1024 {
		t.Errorf("%+v %v", root, err)
	}
	if !tree.Enabled("streamer", "register") {
		t.Error("register is not enabled")
	}
	if s, _ := Get[streamConfig](tree, "servers.streamer"); len(s.Listeners["tls"].Allow) != 2 {
		t.Errorf("%+v", s)
	}
}

func TestSecretIsNeverPrinted(t *testing.T) {
	s := NewSecret("hunter2")
	type inside struct{ S Secret }
	var b strings.Builder
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "s", s, "in", inside{s})
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
		fmt.Fprintf(&b, verb+verb, s, inside{s})
	}
	y, _ := s.MarshalYAML()
	b.Write(y)
	if strings.Contains(b.String(), "hunter2") || strings.Contains(b.String(), "68756e746572") || !strings.Contains(b.String(), "***") {
		t.Error(b.String())
	}
	if s.Reveal() != "hunter2" || NewSecret("").String() != "" {
		t.Error("reveal")
	}
}

func TestUnits(t *testing.T) {
	for text, want := range map[string]time.Duration{"30s": 30 * time.Second, "1d12h": 36 * time.Hour, "30d": 30 * day, "0": 0, "-1s": -time.Second, "500ms": time.Second / 2, "1h30m": 90 * time.Minute} {
		d, err := ParseDuration(text)
		if err != nil || d != want {
			t.Errorf("%s: %v %v", text, d, err)
		}
		if again, err := ParseDuration(FormatDuration(d)); err != nil || again != d {
			t.Errorf("%s is written %s", text, FormatDuration(d))
		}
	}
	for _, text := range []string{"", "5", "d", "-1d", "1d-1h", "999999999d", "106751d24h", "1 day"} {
		if d, err := ParseDuration(text); err == nil {
			t.Errorf("%q is %v", text, d)
		}
	}
	for text, want := range map[string]Size{"0": 0, "512": 512, "512B": 512, "256KiB": 256 << 10, "1 GiB": 1 << 30, "10MB": 10e6, "3kB": 3000} {
		n, err := ParseSize(text)
		if err != nil || n != want {
			t.Errorf("%s: %v %v", text, n, err)
		}
		if again, err := ParseSize(n.String()); err != nil || again != n {
			t.Errorf("%s is written %s", text, n)
		}
	}
	for _, text := range []string{"", "-1", "KiB", "1.5KiB", "9999999TiB", "1kib"} {
		if n, err := ParseSize(text); err == nil {
			t.Errorf("%q is %v", text, n)
		}
	}
}

func TestPaths(t *testing.T) {
	for _, s := range [][]string{{"a"}, {"a", "b_c"}, {"hosts", "example.org", "x"}, {"a", `q"uo.te`}, {"", "x"}, {`"`}, {"x", ""}} {
		got, err := splitPath(joinPath(s))
		if err != nil || strings.Join(got, "|") != strings.Join(s, "|") {
			t.Errorf("%q: %s: %q %v", s, joinPath(s), got, err)
		}
	}
	if _, err := splitPath(`a."b`); err == nil {
		t.Error("an open quote")
	}
}

// FuzzLoad: whatever the file holds, Parse returns a tree that can be decoded
// and shown, or findings that can be printed; never both, never neither.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(good))
	doc, err := Doc(testSchema(f))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(doc))
	for _, seed := range []string{"", "a: b: c", "? a\n: b", "data: &a *a", "hosts: {<<: x, a: 1}", "log:\n\tlevel: x", "- - -", "{", "[[[[", "data: |\n x\n  y", "\"a", "storage: {dsn: x, dsn_file: y}", "servers: {streamer: {listeners: {c2s: false}}}", "%YAML 1.2\n---\na"} {
		f.Add([]byte(seed))
	}
	schema := testSchema(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		tree, err := Parse(schema, "p.yaml", data, Inputs{ReadFile: func(string) ([]byte, error) { return nil, os.ErrNotExist }})
		if (tree == nil) == (err == nil) {
			t.Fatal("neither or both")
		}
		if err != nil {
			if err.Error() == "" {
				t.Fatal("an error without a text")
			}
			return
		}
		if _, err := Get[rootConfig](tree, ""); err != nil {
			t.Fatal(err)
		}
		tree.Show()
		if again, err := tree.WithOverlay(Overlay{}); err != nil || len(Diff(tree, again)) != 0 {
			t.Fatal("the same overlay gives another tree", err)
		}
	})
}

// What quote writes, the reader reads back: the documentation and the lists of
// the overlay depend on it.
func TestQuote(t *testing.T) {
	for _, text := range []string{"", "a", "true", "~", "null", "No", "5", "0x1", "1e3", ".inf", ".5", "a: b", "a #b", "[x]", "{", `"`, `'`, `\`, "\\n", "a\nb", "\t", " x ", "\u2028", "\x7f", "\x01", "é", "😀", "-", "- a", "*a", "&a", "!x", "%", "@", "`", "<&>", "2001-01-01", "a,b", "::1", "*", "..", "./x", "..."} {
		r := &reader{report: func(_ pos, message, _ string) { t.Errorf("%q: %s", text, message) }}
		got := r.read([]byte("[" + quote(text) + ", x]"))
		if got == nil || len(got.items) != 2 || got.items[0].shape != isScalar || got.items[0].text != text {
			t.Errorf("%q is written %s", text, quote(text))
		}
	}
}

// A file is bounded in length, and what the parser does with the worst of one
// ends.
func TestHostile(t *testing.T) {
	for name, text := range map[string]string{
		"deep":  strings.Repeat("[", 5000),
		"deep2": "data: " + strings.Repeat("[", 5000) + strings.Repeat("]", 5000),
		"deep3": strings.Repeat("a: {", 3000) + strings.Repeat("}", 3000),
		"long":  strings.Repeat("#", maxFile+1),
	} {
		if _, err := Parse(testSchema(t), "p.yaml", []byte(text), Inputs{}); err == nil || len(err.Error()) > 4096 {
			t.Errorf("%s: %d bytes of error", name, len(fmt.Sprint(err)))
		}
	}
}
