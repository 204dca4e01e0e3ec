package config

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
)

type kind uint8

const (
	kSection kind = iota
	kMap
	kList
	kString
	kBool
	kInt
	kUint
	kFloat
	kDuration
	kSize
	kSecret
	kText
)

// spec is what is known of one key before any value is: it is built once from
// a struct field and never changes.
type spec struct {
	name      string
	doc, unit string
	kind      kind
	typ       reflect.Type // nil for the sections that are no struct: servers, components
	index     []int        // the field in the struct around it; nil for keys that are no field
	fields    []*spec      // of a section, in order
	elem      *spec        // of a list or map
	min, max  string       // as in the tag, checked when the schema is built
	enum      []string
	secret    bool
	live      bool
	noOverlay bool
	own       bool   // set at run time, it is so on that node alone
	fileFor   string // this is "foo_file", the other way to give the secret "foo"
	reserved  bool   // the key `enabled` of servers and components
	off       bool   // a server or component that is not enabled by default
	byDomain  bool   // a map whose entries say what is otherwise than in the section around it
}

func (s *spec) field(name string) *spec {
	for _, f := range s.fields {
		if f.name == name {
			return f
		}
	}
	return nil
}

// Schema is every key there is. Build it with Root, Server and Component; what
// is wrong with a struct is kept and returned by Err and Load.
type Schema struct {
	root    spec
	servers spec
	def     map[*spec]reflect.Value // the defaults of each registered struct
	errs    []error
	secrets map[string]bool
}

// Option changes how a server or component is registered.
type Option func(*spec)

// DefaultOff makes a server or component disabled unless the configuration
// says `enabled: true`.
func DefaultOff() Option { return func(s *spec) { s.off = true } }

// NewSchema returns an empty schema.
func NewSchema() *Schema {
	return &Schema{
		root:    spec{kind: kSection},
		servers: spec{name: "servers", kind: kSection, doc: "The servers of this process and their components."},
		def:     map[*spec]reflect.Value{}, secrets: map[string]bool{},
	}
}

// Root sets the struct of the file's top level, all but `servers`.
func (s *Schema) Root(defaults any) {
	s.fill(&s.root, "", defaults)
	if s.root.field("servers") != nil {
		s.wrong("the key servers is reserved")
	}
	s.root.fields = append(s.root.fields, &s.servers)
}

// Server adds the section servers.NAME. The struct may be nil.
func (s *Schema) Server(name, doc string, defaults any, options ...Option) {
	s.owned(&s.servers, name, doc, false, defaults, options)
	server := s.servers.field(name)
	if server.field("components") != nil {
		s.wrong("%s: the key components is reserved", ServerPath(name))
	}
	server.fields = append(server.fields, &spec{name: "components", kind: kSection, doc: "The components of this server."})
}

// Component adds the section servers.SERVER.components.NAME. The struct may be nil.
func (s *Schema) Component(server, name, doc string, defaults any, options ...Option) {
	at := s.servers.field(server)
	if at == nil {
		s.wrong("component %s: there is no server %s", name, server)
		return
	}
	s.owned(at.field("components"), name, doc, true, defaults, options)
}

// Err returns what is wrong with the structs: a mistake of the program.
func (s *Schema) Err() error {
	if len(s.errs) == 0 {
		return nil
	}
	return fmt.Errorf("configuration schema: %w", errors.Join(s.errs...))
}

func (s *Schema) wrong(format string, args ...any) {
	s.errs = append(s.errs, fmt.Errorf(format, args...))
}

// owned adds the section of a server or component, with the reserved key.
func (s *Schema) owned(in *spec, name, doc string, live bool, defaults any, options []Option) {
	if in.field(name) != nil {
		s.wrong("%s is registered twice", name)
	}
	if !serverName.MatchString(name) {
		s.wrong("%q is no name for a server or component", name)
	}
	sec := &spec{name: name, doc: doc, kind: kSection, live: live}
	for _, o := range options {
		o(sec)
	}
	enabled := &spec{name: "enabled", kind: kBool, typ: reflect.TypeFor[bool](), live: live, reserved: true,
		doc: "Whether it runs."}
	s.def[enabled] = reflect.ValueOf(!sec.off)
	if defaults != nil {
		s.fill(sec, name, defaults)
	}
	if sec.field("enabled") != nil {
		s.wrong("%s: the key enabled is reserved", name)
	}
	sec.fields = slices.Insert(sec.fields, 0, enabled)
	s.fits(sec, name)
	in.fields = append(in.fields, sec)
}

var (
	keyName    = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	serverName = regexp.MustCompile(`^[a-z][a-z0-9_-]*$`)
)

// fill makes sec the section of the struct that defaults points to.
func (s *Schema) fill(sec *spec, at string, defaults any) {
	v := reflect.ValueOf(defaults)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		s.wrong("%s: defaults must point to a struct, not %T", at, defaults)
		return
	}
	sec.typ = v.Elem().Type()
	kept := reflect.New(sec.typ).Elem()
	kept.Set(v.Elem())
	s.def[sec] = kept
	s.structFields(sec, at, sec.typ, nil, nil)
}

func (s *Schema) structFields(sec *spec, at string, t reflect.Type, index []int, around []reflect.Type) {
	if slices.Contains(around, t) {
		s.wrong("%s: %s contains itself", at, t)
		return
	}
	around = append(slices.Clone(around), t)
	for i := range t.NumField() {
		f := t.Field(i)
		tag, tagged := f.Tag.Lookup("yaml")
		name, _, _ := strings.Cut(tag, ",")
		where := append(slices.Clone(index), i)
		path := strings.TrimPrefix(at+"."+name, ".")
		switch {
		case f.Anonymous && f.Type.Kind() == reflect.Struct && name == "":
			s.structFields(sec, at, f.Type, where, around)
		case name == "-" || (!f.IsExported() && !tagged):
		case !f.IsExported() || !keyName.MatchString(name):
			s.wrong("%s: field %s.%s needs a yaml tag with a name in lower case", at, t, f.Name)
		case sec.field(name) != nil:
			s.wrong("%s: two fields have this key", path)
		default:
			k := s.key(path, name, f, sec.live, around)
			k.index = where
			sec.fields = append(sec.fields, k)
			if k.secret && k.kind != kSection {
				s.addSecret(sec, k)
			}
		}
	}
}

// addSecret adds foo_file for the secret foo, and foo to what errors mask.
func (s *Schema) addSecret(sec, k *spec) {
	s.secrets[k.name] = true
	if k.kind == kList || k.kind == kMap {
		return
	}
	sec.fields = append(sec.fields, &spec{name: k.name + "_file", fileFor: k.name, kind: kString,
		typ: reflect.TypeFor[string](), live: k.live, noOverlay: k.noOverlay, own: true,
		doc: fmt.Sprintf("A file that holds %s.", k.name)})
}

func (s *Schema) key(path, name string, f reflect.StructField, live bool, around []reflect.Type) *spec {
	k := &spec{name: name, doc: f.Tag.Get("doc"), unit: f.Tag.Get("unit"), live: live,
		min: f.Tag.Get("min"), max: f.Tag.Get("max"),
		secret: f.Tag.Get("secret") == "true"}
	if k.doc == "" {
		s.wrong("%s: no doc tag", path)
	}
	if e := f.Tag.Get("enum"); e != "" {
		k.enum = strings.Split(e, ",")
	}
	switch r := f.Tag.Get("reload"); r {
	case "live", "restart":
		k.live = r == "live"
	case "":
	default:
		s.wrong("%s: reload is live or restart, not %q", path, r)
	}
	switch o := f.Tag.Get("overlay"); o {
	case "no", "node":
		k.noOverlay, k.own = o == "no", o == "node"
	case "":
	default:
		s.wrong("%s: overlay is no or node, not %q", path, o)
	}
	s.typed(k, path, f.Type, around)
	s.bounds(k, path)
	return k
}

// typed completes a spec by its Go type.
func (s *Schema) typed(k *spec, path string, t reflect.Type, around []reflect.Type) {
	k.typ = t
	inner := func() *spec {
		e := &spec{live: k.live, secret: k.secret, noOverlay: k.noOverlay, own: k.own, enum: k.enum, unit: k.unit}
		s.typed(e, path, t.Elem(), around)
		k.secret = k.secret || e.secret
		return e
	}
	switch kd, ok := scalarKind(t); {
	case ok:
		k.kind = kd
		k.secret = k.secret || kd == kSecret
	case t.Kind() == reflect.Struct:
		k.kind = kSection
		s.structFields(k, path, t, nil, around)
		if k.noOverlay || k.own {
			k.each(func(in *spec) { in.noOverlay, in.own = in.noOverlay || k.noOverlay, in.own || k.own })
		}
	case t.Kind() == reflect.Slice:
		k.kind, k.elem, k.enum = kList, inner(), nil
		if k.elem.kind <= kList {
			s.wrong("%s: a list holds single values, not %s", path, t.Elem())
		}
	case t.Kind() == reflect.Map && t.Key().Kind() == reflect.String:
		k.kind, k.elem, k.enum, k.byDomain = kMap, inner(), nil, t.Implements(isByDomain)
		if k.elem.kind == kMap {
			s.wrong("%s: a map of maps", path)
		}
		if k.byDomain && k.elem.kind != kSection {
			s.wrong("%s: what is otherwise is a struct", path)
		}
	default:
		s.wrong("%s: type %s is not for configuration", path, t)
	}
}

func (s *spec) each(f func(*spec)) {
	for _, in := range s.fields {
		f(in)
		in.each(f)
	}
	if s.elem != nil {
		f(s.elem)
		s.elem.each(f)
	}
}

func scalarKind(t reflect.Type) (kind, bool) {
	switch t {
	case reflect.TypeFor[time.Duration]():
		return kDuration, true
	case reflect.TypeFor[Size]():
		return kSize, true
	case reflect.TypeFor[Secret]():
		return kSecret, true
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) && t.Implements(reflect.TypeFor[encoding.TextMarshaler]()) {
		return kText, true
	}
	switch t.Kind() {
	case reflect.String:
		return kString, true
	case reflect.Bool:
		return kBool, true
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return kInt, true
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return kUint, true
	case reflect.Float32, reflect.Float64:
		return kFloat, true
	}
	return 0, false
}

// mask hides in a line of the file whatever may be the value of a secret: an
// error shows the line, and errors are logged.
func (s *Schema) mask(line string) string {
	line = withoutUserinfo(line)
	if len(s.secrets) == 0 {
		return line
	}
	names := make([]string, 0, len(s.secrets))
	for n := range s.secrets {
		names = append(names, n)
	}
	key := regexp.MustCompile(`\b(?:` + strings.Join(names, "|") + `)["']?\s*:\s*`)
	if at := key.FindStringIndex(line); at != nil && strings.TrimSpace(line[at[1]:]) != "" {
		return line[:at[1]] + stars
	}
	return line
}
