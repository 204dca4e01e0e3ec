package script

import (
	"path/filepath"
	"testing"
)

// Test runs every script the glob pattern names as a subtest. A script must say what it tests and name its source.
func Test(t *testing.T, r *Runner, glob string) {
	t.Helper()
	files, err := filepath.Glob(glob)
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts at %s (%v)", glob, err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			s, err := ParseFile(f)
			if err != nil {
				t.Fatal(err)
			}
			if s.Title == "" || len(s.Sources) == 0 {
				t.Errorf("%s: the header must say the behaviour and its source", f)
			}
			switch res := r.Run(t.Context(), s); res.Outcome {
			case Failed:
				t.Errorf("%s\n%s", res.Reason, res.Report)
			case Skipped:
				t.Skip(res.Reason)
			}
		})
	}
}
