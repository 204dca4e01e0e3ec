package config

import (
	"fmt"
	"strings"
)

// Doc writes the whole schema as a configuration file: every key with its
// documentation, type, unit and bounds above it, and the default as its value.
// The file is valid and means the same as an empty one.
func Doc(schema *Schema) (string, error) {
	if err := schema.Err(); err != nil {
		return "", err
	}
	w := &docWriter{schema: schema}
	w.line(0, "# Every key, with its default. Leave out what you do not change.")
	w.line(0, "# The environment wins over the file: storage.dsn is PARLEY_STORAGE_DSN.")
	w.line(0, "# Durations: 500ms, 30s, 5m, 12h, 30d. Sizes: 512, 256KiB, 10MB.")
	w.inside(schema.instantiate(), 0)
	return w.b.String(), nil
}

type docWriter struct {
	schema  *Schema
	b       strings.Builder
	comment int // 1 + the indentation at which what is written is commented out; 0: it is not
}

func (w *docWriter) line(indent int, text string) {
	if w.comment > 0 {
		outer := w.comment - 1
		text = "# " + strings.Repeat(" ", indent-outer) + text
		indent = outer
	}
	w.b.WriteString(strings.TrimRight(strings.Repeat(" ", indent)+text, " ") + "\n")
}

const docWidth = 96

// about writes the comment above a key.
func (w *docWriter) about(s *spec, indent int) {
	text := ""
	for word := range strings.FieldsSeq(s.doc) {
		if text != "" && len(text)+len(word)+indent > docWidth {
			w.line(indent, "# "+text)
			text = ""
		}
		text = strings.TrimPrefix(text+" "+word, " ")
	}
	if text != "" {
		w.line(indent, "# "+text)
	}
	if s.kind == kSection {
		return
	}
	facts := []string{s.docName()}
	enum := s.enum
	if s.elem != nil {
		enum = s.elem.enum
	}
	if len(enum) > 0 {
		facts = append(facts, "one of "+strings.Join(enum, ", "))
	}
	if s.unit != "" {
		facts = append(facts, "in "+s.unit)
	}
	if s.min == "1" && s.counted() {
		facts = append(facts, "not empty")
	} else if s.min != "" && s.min != "0" {
		facts = append(facts, "at least "+s.bound(s.min))
	}
	if s.max != "" {
		facts = append(facts, "at most "+s.bound(s.max))
	}
	if !s.live {
		facts = append(facts, "needs a restart")
	}
	if s.own && s.fileFor == "" {
		facts = append(facts, "set at run time: of that node alone")
	}
	w.line(indent, "# ("+strings.Join(facts, "; ")+")")
}

func (w *docWriter) inside(n *node, indent int) {
	for _, k := range n.kids {
		if k.spec.fileFor != "" { // it is named with its secret
			continue
		}
		if w.comment == 0 && indent <= 6 && (indent == 0 || k.spec.kind <= kMap) {
			w.line(0, "")
		}
		w.about(k.spec, indent)
		w.key(k, indent)
	}
}

func (w *docWriter) key(k *node, indent int) {
	switch {
	case k.spec.kind == kSection:
		w.line(indent, k.name+":")
		w.inside(k, indent+2)
	case k.spec.kind == kMap:
		w.line(indent, k.name+":")
		w.mapping(k, indent+2)
	case k.spec.secret:
		also := ""
		if k.parent.spec.field(k.name+"_file") != nil {
			also = fmt.Sprintf("   # or %s_file: PATH", k.name)
		}
		w.line(indent, "# "+k.name+`: ""`+also)
	default:
		w.line(indent, k.name+": "+k.spec.quoted(k.value.val))
	}
}

// mapping writes what an entry of a map looks like as a comment, and then the
// entries there are by default.
func (w *docWriter) mapping(m *node, indent int) {
	l := &loader{schema: w.schema}
	name := "NAME"
	if m.spec.byDomain {
		name = "DOMAIN"
	}
	sample := l.entry(&node{spec: m.spec, parent: m.parent, name: m.name}, name)
	outer := w.comment
	if outer == 0 {
		w.comment = indent + 1
	}
	w.entry(sample, indent, !m.spec.byDomain) // the section explains its keys
	w.comment = outer
	for _, k := range m.kids {
		w.entry(k, indent, false)
	}
}

func (w *docWriter) entry(k *node, indent int, explain bool) {
	name := quote(k.name)
	switch {
	case k.leaf() && k.spec.secret:
		w.line(indent, "# "+name+`: ""`)
	case k.leaf():
		w.line(indent, name+": "+k.spec.quoted(k.value.val))
	case explain:
		w.line(indent, name+":")
		w.inside(k, indent+2)
	default:
		w.line(indent, name+":")
		for _, in := range k.kids {
			if in.spec.fileFor == "" && !in.spec.secret {
				w.entry(in, indent+2, false)
			}
		}
	}
}
