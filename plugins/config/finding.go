package config

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
)

// Finding is one thing wrong with a configuration.
type Finding struct {
	Origin  string // the file's name, "environment NAME", "flag --x" or "overlay v3 (by admin, …)"
	Line    int    // 1-based; 0 when there is no place in the file
	Column  int    // 1-based, in characters
	Path    string // the key it is about, "" when there is none
	Message string
	Hint    string // what to do about it, "" when there is nothing to say
	Excerpt string // the line itself, values of secrets masked
}

// Error gives the finding on one line, and below it the line and a caret when
// it has a place in the file.
func (f Finding) Error() string {
	var b strings.Builder
	b.WriteString(f.Origin)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", f.Line, f.Column)
	}
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	b.WriteString(f.Message)
	if f.Hint != "" {
		fmt.Fprintf(&b, " (%s)", f.Hint)
	}
	if f.Line > 0 && f.Excerpt != "" {
		line, column := clip(f.Excerpt, f.Column)
		gutter := fmt.Sprintf("%5d", f.Line)
		fmt.Fprintf(&b, "\n%s | %s\n%s | %s^", gutter, line,
			strings.Repeat(" ", len(gutter)), strings.Repeat(" ", column-1))
	}
	return b.String()
}

// Findings is every finding of one load, in the order of the file, then
// environment, flags and overlay. It is the error Load returns.
type Findings []Finding

// Error joins the findings, one below the other.
func (f Findings) Error() string {
	texts := make([]string, len(f))
	for i := range f {
		texts[i] = f[i].Error()
	}
	return strings.Join(texts, "\n")
}

// KeyError is an error about one key of a section. A Validate method returns
// it (alone or joined with others) to have the caret under that key.
type KeyError struct {
	Key string // relative to the section, "tls.cert" for a nested one
	Err error
}

// Error names the key before the error.
func (e *KeyError) Error() string { return e.Key + ": " + e.Err.Error() }

// Unwrap returns the error itself.
func (e *KeyError) Unwrap() error { return e.Err }

// Key makes a KeyError.
func Key(key, format string, args ...any) error {
	return &KeyError{Key: key, Err: fmt.Errorf(format, args...)}
}

// split undoes errors.Join.
func split(err error) []error {
	if _, isKey := errors.AsType[*KeyError](err); !isKey {
		return []error{err}
	}
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	var all []error
	for _, e := range joined.Unwrap() {
		all = append(all, split(e)...)
	}
	return all
}

const clipAt = 120 // characters of a line that an error shows

// clip makes a line printable and short, keeping the column in sight.
func clip(line string, column int) (string, int) {
	runes := []rune(line)
	for i, r := range runes {
		switch {
		case r == '\t':
			runes[i] = ' '
		case !unicode.IsPrint(r):
			runes[i] = '·'
		}
	}
	column = min(max(column, 1), len(runes)+1)
	if len(runes) <= clipAt {
		return string(runes), column
	}
	from := min(max(column-clipAt/2, 0), len(runes)-clipAt)
	return string(runes[from : from+clipAt]), column - from
}

// nearest returns the name most like the given one, "" when none is near.
func nearest(name string, names []string) string {
	best, bestAt := "", max(len([]rune(name))/3, 1)+1
	for _, n := range names {
		if d := distance(name, n); d < bestAt {
			best, bestAt = n, d
		}
	}
	return best
}

// distance counts the insertions, deletions, replacements and swaps of
// neighbours that lead from a to b.
func distance(a, b string) int {
	x, y := []rune(strings.ToLower(a)), []rune(strings.ToLower(b))
	if len(x) > 100 || len(y) > 100 { // a name that long is no typing error
		return max(len(x), len(y))
	}
	before, last, row := make([]int, len(y)+1), make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range last {
		last[j] = j
	}
	for i := range x {
		row[0] = i + 1
		for j := range y {
			same := 1
			if x[i] == y[j] {
				same = 0
			}
			row[j+1] = min(row[j]+1, last[j+1]+1, last[j]+same)
			if i > 0 && j > 0 && x[i] == y[j-1] && x[i-1] == y[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(y)]
}
