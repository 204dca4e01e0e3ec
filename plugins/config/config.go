// Package config is the server's configuration: one YAML file, strict, and
// documented from the structs that the host, its servers and their components
// decode it into (design/house.md, "Configuration").
//
// The flow: the host builds a Schema from structs that hold the defaults. Load
// reads the file with positions, applies it over the defaults, then the
// environment, the flags and the Overlay that was set at run time; each layer
// wins over those before it, and every key remembers where its value is from.
// Everything that is wrong comes back together, as Findings, before anything
// starts. The Tree that results is immutable: Decode copies a section out of
// it, Show prints it, Set and Unset make a new one with a changed overlay, Diff
// says what a reload would change.
//
// A struct that describes a section:
//
//	type Config struct {
//		MaxItems int           `yaml:"max_items" doc:"Contacts in one roster." unit:"items" min:"1"`
//		Idle     time.Duration `yaml:"idle" doc:"…" min:"1s" reload:"live"`
//		Token    config.Secret `yaml:"token" doc:"…"`
//	}
//
// Tags: yaml (the key; "-" leaves the field out), doc (required), unit, min and
// max (of a number, duration or size; of the length of a list, map or text),
// enum ("a,b"), secret ("true"; implied by type Secret), reload ("live" or
// "restart"; inherited by what is inside; without it components are live, for
// the host replaces them under load, and everything else needs a restart),
// overlay ("no": cannot be set at run time, like the database that holds the
// overlay; "node": what is set at run time counts on that node alone, like an
// address of its machine).
//
// Types: string, bool, integers, floats, time.Duration, Size, Secret, whatever
// has UnmarshalText and MarshalText, lists of those, maps from text to those
// or to structs, and structs. Embedded structs without a yaml tag are part of
// the struct around them. A ByDomain is what a section says of single domains.
package config

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Validator is what the struct of a section may have, to check what tags
// cannot say. It runs on the complete section, and only when every key in it
// is right by itself. Errors made with Key point at their key.
type Validator interface{ Validate() error }

// Defaulter is what the struct of a map's entries may have: SetDefaults fills a
// new entry before the file is applied to it.
type Defaulter interface{ SetDefaults() }

// Flag is a command line flag that was given.
type Flag struct {
	Name  string // as typed, without dashes: "c2s"
	Path  string // the key it sets
	Value string
}

// Inputs is what comes on top of the file.
type Inputs struct {
	Environ  []string // "NAME=value" as of os.Environ; only PARLEY_ counts
	Flags    []Flag   // in order; the last wins
	Overlay  Overlay
	ReadFile func(name string) ([]byte, error) // for the files that hold secrets; nil: the file system
}

// Load reads the named file, "" for none at all, and what comes on top of it.
// The error is Findings when the configuration is wrong, else that of reading
// the file or of the schema itself.
func Load(schema *Schema, file string, in Inputs) (*Tree, error) {
	if file == "" {
		return Parse(schema, "", nil, in)
	}
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return Parse(schema, file, data, in)
}

// Parse is Load for a file whose content is at hand; name is what errors and
// sources call it.
func Parse(schema *Schema, name string, data []byte, in Inputs) (*Tree, error) {
	if err := schema.Err(); err != nil {
		return nil, err
	}
	if in.ReadFile == nil {
		in.ReadFile = readSecret
	}
	l := &loader{schema: schema, name: name, in: in, lines: strings.Split(strings.TrimPrefix(string(data), "\ufeff"), "\n")}
	l.root = schema.instantiate()
	if !l.file(data) {
		return nil, l.found
	}
	l.environment()
	l.flags()
	base := l.root.clone()
	ignored := l.overlay()
	l.verify(l.root)
	if err := l.findings(); err != nil {
		return nil, err
	}
	return &Tree{loader: l.again(), base: base, root: l.root, overlay: in.Overlay.clone(), ignored: ignored}, nil
}

// loader applies the layers to the nodes of one tree.
type loader struct {
	schema *Schema
	name   string
	lines  []string
	in     Inputs
	root   *node
	found  Findings
}

// findings returns what was found, that in the file first and in its order.
func (l *loader) findings() error {
	if len(l.found) == 0 {
		return nil
	}
	slices.SortStableFunc(l.found, func(a, b Finding) int {
		if (a.Line == 0) != (b.Line == 0) {
			return cmp.Compare(b.Line, a.Line)
		}
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return l.found
}

// again is a loader for the next overlay on the same file.
func (l *loader) again() *loader {
	return &loader{schema: l.schema, name: l.name, lines: l.lines, in: l.in}
}

// layer is one source of values while it is applied.
type layer struct {
	source Source
	origin string // for findings; the file's have a place too
}

func (ly layer) at(p pos) Source {
	s := ly.source
	if s.Kind == FromFile {
		s.Line = p.line
	}
	return s
}

func (l *loader) fileLayer() layer {
	return layer{source: Source{Kind: FromFile, Name: l.name}, origin: l.name}
}

// file applies the file; false when it is not YAML at all.
func (l *loader) file(data []byte) bool {
	ly := l.fileLayer()
	r := &reader{report: func(at pos, message, hint string) { l.report(ly, at, nil, message, hint) }}
	root := r.read(data)
	if root == nil {
		return false
	}
	l.apply(l.root, root, ly)
	l.root.eachLeaf(func(n *node) { n.base = n.value })
	return true
}

func (l *loader) flags() {
	for _, f := range l.in.Flags {
		ly := layer{source: Source{Kind: FromFlag, Name: f.Name}, origin: "flag --" + f.Name}
		n, err := l.reach(f.Path)
		switch {
		case err != nil:
			l.report(ly, pos{}, nil, err.Error(), "")
		case n.spec.secret:
			l.report(ly, pos{}, n, fmt.Sprintf("%s is a secret and does not belong on a command line", n.path()), secretHint(n))
		default:
			l.applyText(n, f.Value, ly)
		}
	}
}

func secretHint(n *node) string {
	return fmt.Sprintf("use %s_file or %s", n.path(), n.envName())
}

// report adds a finding about n (or nothing), at a place of the file when the
// layer is the file.
func (l *loader) report(ly layer, at pos, n *node, message, hint string) {
	f := Finding{Origin: ly.origin, Message: message, Hint: hint}
	if n != nil {
		f.Path = n.path()
		n.wrong = true
	}
	if ly.source.Kind == FromFile && at.line > 0 {
		f.Line, f.Column = at.line, at.column
		if at.line <= len(l.lines) {
			f.Excerpt = l.schema.mask(strings.TrimSuffix(l.lines[at.line-1], "\r"))
		}
	}
	l.found = append(l.found, f)
}

// readSecret reads a file that holds a secret.
func readSecret(name string) ([]byte, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() { // a pipe would make the start wait for its writer
		return nil, errors.New("not a regular file")
	}
	if info.Size() > maxSecret {
		return nil, fmt.Errorf("longer than %s", Size(maxSecret))
	}
	return os.ReadFile(name)
}

const maxSecret = 64 << 10 // bytes of a file with a secret

// secretFile sets a secret from the file that n, its "_file" key, names. A
// relative name is relative to the folder of the configuration file when it is
// written there, else to the working directory.
func (l *loader) secretFile(n *node, name string, at pos, ly layer) {
	target := n.parent.kid(n.spec.fileFor)
	if target.value.src.Kind == ly.source.Kind && target.value.src.Secret == "" {
		l.report(ly, at, n, fmt.Sprintf("both %s and %s are given", target.spec.name, n.spec.name), "keep one of them")
		return
	}
	file := name
	if ly.source.Kind == FromFile && !filepath.IsAbs(file) {
		file = filepath.Join(filepath.Dir(l.name), file)
	}
	data, err := l.in.ReadFile(file)
	if err != nil {
		var path *os.PathError
		if errors.As(err, &path) {
			err = path.Err
		}
		l.report(ly, at, n, fmt.Sprintf("%s: cannot read %s: %v", n.path(), file, err), "")
		return
	}
	v, err := target.spec.parse(strings.TrimSpace(string(data)))
	if err == nil {
		err = target.spec.check(v)
	}
	if err != nil {
		l.report(ly, at, n, fmt.Sprintf("%s: the content of %s is wrong: %v", n.path(), file, err), "")
		return
	}
	src := ly.at(at)
	src.Secret = file
	target.value = setting{val: v, src: src}
}
