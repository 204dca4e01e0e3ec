package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// standard is one RFC or XEP.
type standard struct {
	name, version string
	sections      map[string]bool
}

type standards map[string]standard

// rule is one row of the contract.
type rule struct {
	number        int
	section, what string
	due           bool
}

// reference is one place that names a standard or a rule.
type reference struct {
	standard string // "RFC 6120", "XEP-0045"; empty for a rule
	section  string // without §; may be empty
	rule     int
	file     string
	line     int
	test     bool // in a test or a script
}

func lines(name string) ([]string, error) {
	b, err := data.ReadFile("data/" + name)
	if err != nil {
		return nil, err
	}
	var out []string
	for l := range strings.Lines(string(b)) {
		if l = strings.TrimSpace(l); l != "" && !strings.HasPrefix(l, "#") {
			out = append(out, l)
		}
	}
	return out, nil
}

func loadStandards() (standards, error) {
	all, err := lines("sections.txt")
	if err != nil {
		return nil, err
	}
	out := standards{}
	for _, l := range all {
		f := strings.Split(l, "|")
		s := standard{name: f[0], version: f[1], sections: map[string]bool{}}
		for _, sec := range strings.Fields(f[2]) {
			s.sections[sec] = true
		}
		out[s.name] = s
	}
	return out, nil
}

func loadRules() ([]rule, error) {
	all, err := lines("rules.txt")
	if err != nil {
		return nil, err
	}
	var out []rule
	for _, l := range all {
		f := strings.Split(l, "|")
		n, err := strconv.Atoi(f[0])
		if err != nil || len(f) != 4 {
			return nil, fmt.Errorf("rules.txt: %q", l)
		}
		out = append(out, rule{number: n, section: f[1], what: f[2], due: f[3] == "now"})
	}
	return out, nil
}

var (
	standardRef = regexp.MustCompile(`\b(RFC \d{4}|XEP-\d{4})((?:,? (?:and )?§[A-Z0-9][0-9.A-Z]*)*)`)
	sectionRef  = regexp.MustCompile(`§([A-Z0-9][0-9.A-Z]*)`)
	ruleRef     = regexp.MustCompile(`(?i)\brules? (\d{1,2}(?:(?:, | and |,)\d{1,2})*)\b`)
	testRuleRef = regexp.MustCompile(`func Test[A-Za-z]*Rule(\d{1,2})`)
	number      = regexp.MustCompile(`\d+`)
)

// scan reads Go files and scripts below root.
func scan(root string) ([]reference, error) {
	var out []reference
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && path != root && (strings.HasPrefix(name, ".") || name == "bin" || name == "node_modules") {
			return filepath.SkipDir
		}
		script := strings.HasSuffix(name, ".txtar")
		if d.IsDir() || !script && !strings.HasSuffix(name, ".go") {
			return nil
		}
		rel, err := filepath.Rel(root, path)
		if err != nil || strings.HasPrefix(rel, "cmd/specref/") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		out = append(out, scanFile(rel, b, script || strings.HasSuffix(name, "_test.go"))...)
		return nil
	})
	return out, err
}

func scanFile(rel string, b []byte, test bool) []reference {
	var out []reference
	sc := bufio.NewScanner(bytes.NewReader(b))
	sc.Buffer(nil, 4<<20)
	for line := 1; sc.Scan(); line++ {
		at := reference{file: rel, line: line, test: test}
		text := sc.Text()
		for _, m := range standardRef.FindAllStringSubmatch(text, -1) {
			at.standard = m[1]
			secs := sectionRef.FindAllStringSubmatch(m[2], -1)
			if len(secs) == 0 {
				at.section = ""
				out = append(out, at)
			}
			for _, s := range secs {
				at.section = strings.TrimRight(s[1], ".")
				out = append(out, at)
			}
		}
		at.standard, at.section = "", ""
		if !test {
			continue
		}
		for _, m := range ruleRef.FindAllStringSubmatch(text, -1) {
			for _, n := range number.FindAllString(m[1], -1) {
				at.rule, _ = strconv.Atoi(n)
				out = append(out, at)
			}
		}
		if m := testRuleRef.FindStringSubmatch(text); m != nil {
			at.rule, _ = strconv.Atoi(m[1])
			out = append(out, at)
		}
	}
	return out
}

// wrong lists references to sections that do not exist.
func (s standards) wrong(refs []reference) []string {
	var out []string
	for _, r := range refs {
		if r.standard == "" {
			continue
		}
		std, known := s[r.standard]
		if !known || r.section == "" || std.sections[r.section] {
			continue
		}
		out = append(out, fmt.Sprintf("%s:%d: %s has no §%s", r.file, r.line, r.standard, r.section))
	}
	return out
}

func untested(rules []rule, refs []reference) []string {
	var out []string
	for _, r := range rules {
		if r.due && len(testsOf(r.number, refs)) == 0 {
			out = append(out, fmt.Sprintf("rule %d (%s, %s) has no test", r.number, r.section, r.what))
		}
	}
	return out
}

func tested(rules []rule, refs []reference) (n int) {
	for _, r := range rules {
		if len(testsOf(r.number, refs)) > 0 {
			n++
		}
	}
	return n
}

// testsOf returns the files that prove a rule.
func testsOf(n int, refs []reference) []string {
	var out []string
	for _, r := range refs {
		if r.rule == n && r.test && !slices.Contains(out, r.file) {
			out = append(out, r.file)
		}
	}
	slices.Sort(out)
	return out
}
