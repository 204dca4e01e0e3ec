package abuse

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// docs/security.md names tests that exist, every TestSecurity…, and for every
// row whose feature is there a test with the row's number.
func TestSecurityTable(t *testing.T) {
	const root, rows = "../../..", 40
	text, err := os.ReadFile(root + "/docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	source := testsIn(t, root)
	named := regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(string(text), -1)
	for _, name := range named {
		if !slices.Contains(source, name) {
			t.Errorf("%s is no test", name)
		}
	}
	numbered := regexp.MustCompile(`^TestReliability(\d\d)`)
	for _, name := range source {
		m := numbered.FindStringSubmatch(name)
		switch {
		case slices.Contains(named, name):
		case strings.HasPrefix(name, "TestSecurity"):
			t.Errorf("%s is not named", name)
		case m != nil && !slices.ContainsFunc(named, func(n string) bool { return strings.HasPrefix(n, m[0]) }):
			t.Errorf("row %s has a test, %s, and none is named", m[1], name)
		}
	}
	row := regexp.MustCompile(`(?m)^\| ([\d, ]+) \| .* \| (.*) \|$`)
	seen := map[int]bool{}
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		for n := range strings.SplitSeq(m[1], ", ") {
			i, err := strconv.Atoi(n)
			if err != nil {
				t.Fatal(err)
			}
			seen[i] = true
			if later := strings.HasPrefix(m[2], "come"); !later && !strings.Contains(m[2], "Test") {
				t.Errorf("row %d has neither a test nor a time", i)
			}
		}
	}
	for i := 1; i <= rows; i++ {
		if !seen[i] {
			t.Errorf("row %d is missing", i)
		}
	}
}

// testsIn are the names of all tests below root.
func testsIn(t *testing.T, root string) (names []string) {
	t.Helper()
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(d.Name(), ".") && path != root:
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		b, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(b, -1) {
			names = append(names, string(m[1]))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
