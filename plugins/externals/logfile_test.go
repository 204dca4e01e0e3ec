package externals

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What a component writes is kept in two files of bounded size, and read from both.
func TestLogsAreBounded(t *testing.T) {
	l := &logfile{path: filepath.Join(t.TempDir(), "log"), max: 100}
	defer l.close()
	if got, err := l.tail(5); err != nil || len(got) != 0 {
		t.Errorf("of nothing: %q, %v", got, err)
	}
	for _, c := range "abcdefghij" {
		if _, err := l.Write([]byte(strings.Repeat(string(c), 29) + "\n")); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"log", "log.1"} {
		if raw, err := os.ReadFile(filepath.Join(filepath.Dir(l.path), name)); err != nil || len(raw) > 100 || len(raw) == 0 {
			t.Errorf("%s has %d bytes: %v", name, len(raw), err)
		}
	}
	got, err := l.tail(3)
	if lines := strings.Split(strings.TrimSpace(string(got)), "\n"); err != nil || len(lines) != 3 || lines[0][0] != 'h' || lines[2][0] != 'j' {
		t.Errorf("the last three lines are %q: %v", got, err)
	}
	if _, err := l.Write([]byte(strings.Repeat("k", 1000))); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(l.path); err != nil || info.Size() > 100 {
		t.Errorf("a long line: %v, %v", info, err)
	}
}
