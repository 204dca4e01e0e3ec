package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"parley/plugins/plugintest/script"
)

// The examples are what the documentation points at: they must parse and name their source.
func TestExamplesParse(t *testing.T) {
	files, err := filepath.Glob("../../examples/scripts/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, f := range files {
		s, err := script.ParseFile(f)
		if err != nil {
			t.Error(err)
		} else if s.Title == "" || len(s.Sources) == 0 {
			t.Errorf("%s: no title or source", f)
		}
	}
}

func execute(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	c := command(&out)
	c.SetArgs(args)
	err := c.ExecuteContext(context.Background())
	return out.String(), err
}

func TestOutput(t *testing.T) {
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good.txtar"), filepath.Join(dir, "bad.txtar")
	for f, text := range map[string]string{good: "client romeo\nromeo !\n", bad: "romeo !\n"} {
		if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := execute(t, "--parse", good, bad)
	if !errors.Is(err, errFailed) || !strings.Contains(out, "ok   "+filepath.Join(dir, "good")+"\n") ||
		!strings.Contains(out, "bad.txtar:1: no client") || !strings.HasSuffix(out, "1 passed, 1 failed, 0 skipped\n") {
		t.Errorf("%v\n%s", err, out)
	}
	out, err = execute(t, "--register", "command false", good)
	if !errors.Is(err, errFailed) || !strings.HasSuffix(out, "0 passed, 1 failed, 0 skipped\n") {
		t.Errorf("%v\n%s", err, out)
	}
	out, err = execute(t, "--register", "command true", "--server", "127.0.0.1:1", "--tls", "ws", good)
	if err != nil || !strings.Contains(out, "WebSocket without --websocket") || !strings.HasSuffix(out, "0 passed, 0 failed, 1 skipped\n") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestFlagsAreChecked(t *testing.T) {
	for _, args := range [][]string{
		{}, {"--tls", "maybe", "x"}, {"--register", "0078", "x"}, {"--server", "nohost", "x"}, {"--service", "muc", "x"},
	} {
		if _, err := execute(t, args...); err == nil || errors.Is(err, errFailed) {
			t.Errorf("%v: %v", args, err)
		}
	}
}

func TestShellQuotes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "out")
	if err := shell(t.Context(), "printf %s {user} > {file}", "{user}", `a'; $(false) "b`, "{file}", file); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(file); string(got) != `a'; $(false) "b` {
		t.Errorf("%q %v", got, err)
	}
	if err := shell(t.Context(), "echo why >&2; exit 3"); err == nil || !strings.Contains(err.Error(), "why") {
		t.Error(err)
	}
}
