package config

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// parse reads one single value. The error says what was expected and shows the
// text, unless it is a secret.
func (s *spec) parse(text string) (reflect.Value, error) {
	v := reflect.New(s.typ).Elem()
	if err := s.parseInto(v, text); err != nil {
		if s.secret {
			return v, fmt.Errorf("not %s", s.typeName())
		}
		return v, err
	}
	return v, nil
}

func (s *spec) parseInto(v reflect.Value, text string) error {
	wrong := fmt.Errorf("%q is not %s", text, s.typeName())
	switch s.kind {
	case kString:
		v.SetString(text)
	case kSecret:
		v.Set(reflect.ValueOf(NewSecret(text)))
	case kBool:
		if text != "true" && text != "false" {
			return wrong
		}
		v.SetBool(text == "true")
	case kInt:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || v.OverflowInt(n) {
			return wrong
		}
		v.SetInt(n)
	case kUint:
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil || v.OverflowUint(n) {
			return wrong
		}
		v.SetUint(n)
	case kFloat:
		n, err := strconv.ParseFloat(text, v.Type().Bits())
		if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
			return wrong
		}
		v.SetFloat(n)
	case kDuration:
		d, err := ParseDuration(text)
		if err != nil {
			return err
		}
		v.SetInt(int64(d))
	case kSize:
		n, err := ParseSize(text)
		if err != nil {
			return err
		}
		v.SetInt(int64(n))
	case kText:
		if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(text)); err != nil {
			return fmt.Errorf("%q: %w", text, err)
		}
	default:
		return wrong
	}
	return nil
}

var kindNames = [...]string{kSection: "a section", kMap: "a map", kList: "a list", kString: "text", kBool: "true or false",
	kInt: "a whole number", kUint: "a whole number, 0 or more", kFloat: "a number", kDuration: "a duration", kSize: "a size",
	kSecret: "text", kText: "text"}

var shortNames = [...]string{kSection: "section", kMap: "map", kList: "list", kString: "text", kBool: "bool", kInt: "int",
	kUint: "int", kFloat: "number", kDuration: "duration", kSize: "size", kSecret: "secret", kText: "text"}

func (s *spec) typeName() string { return kindNames[s.kind] }

// docName is the type as the documentation has it.
func (s *spec) docName() string {
	switch s.kind {
	case kList:
		return "list of " + s.elem.docName()
	case kMap:
		if s.byDomain {
			return "map of DOMAIN to what is otherwise there"
		}
		return "map of NAME to " + s.elem.docName()
	case kText:
		return strings.ToLower(s.typ.Name())
	}
	return shortNames[s.kind]
}

// check holds a value against enum, min and max.
func (s *spec) check(v reflect.Value) error {
	if s.kind == kList {
		for i := range v.Len() {
			if err := s.elem.check(v.Index(i)); err != nil {
				return err
			}
		}
	} else if len(s.enum) > 0 && !slices.Contains(s.enum, s.plain(v)) {
		if s.secret {
			return fmt.Errorf("not one of %s", strings.Join(s.enum, ", "))
		}
		err := fmt.Errorf("%q is not one of %s", s.plain(v), strings.Join(s.enum, ", "))
		if near := nearest(s.plain(v), s.enum); near != "" {
			err = fmt.Errorf("%w; did you mean %q?", err, near)
		}
		return err
	}
	if s.min == "" && s.max == "" {
		return nil
	}
	low, high := s.limit(s.min), s.limit(s.max)
	got := s.measure(v)
	switch {
	case s.min != "" && got < low && got == 0 && s.counted():
		return fmt.Errorf("must not be empty")
	case s.min != "" && got < low:
		return fmt.Errorf("must be at least %s", s.bound(s.min))
	case s.max != "" && got > high:
		return fmt.Errorf("must be at most %s", s.bound(s.max))
	}
	return nil
}

// counted reports whether min and max count what the value consists of.
func (s *spec) counted() bool {
	return s.kind == kList || s.kind == kMap || s.kind == kString || s.kind == kSecret
}

func (s *spec) bound(text string) string {
	switch {
	case s.kind == kString || s.kind == kSecret:
		return text + " bytes long"
	case s.counted():
		return text + " items"
	}
	return text
}

// measure is what min and max are compared with. float64 is exact up to 2⁵³,
// far beyond any bound that a tag states.
func (s *spec) measure(v reflect.Value) float64 {
	switch s.kind {
	case kList, kMap, kString:
		return float64(v.Len())
	case kSecret:
		return float64(len(v.Interface().(Secret).text))
	case kUint:
		return float64(v.Uint())
	case kFloat:
		return v.Float()
	}
	return float64(v.Int())
}

func (s *spec) limit(text string) float64 {
	n, _ := s.parseLimit(text)
	return n
}

func (s *spec) parseLimit(text string) (float64, error) {
	switch s.kind {
	case kDuration:
		d, err := ParseDuration(text)
		return float64(d), err
	case kSize:
		n, err := ParseSize(text)
		return float64(n), err
	case kInt, kUint, kFloat, kList, kMap, kString, kSecret:
		return strconv.ParseFloat(text, 64)
	}
	return 0, fmt.Errorf("no bounds for %s", s.typeName())
}

// bounds checks the tags min and max. Durations and sizes are not negative
// unless a tag says so.
func (schema *Schema) bounds(s *spec, path string) {
	if (s.kind == kDuration || s.kind == kSize) && s.min == "" {
		s.min = "0"
	}
	for _, text := range []string{s.min, s.max} {
		if text == "" {
			continue
		}
		if _, err := s.parseLimit(text); err != nil {
			schema.wrong("%s: min or max: %v", path, err)
		}
	}
}

// plain is a single value as text; the truth, secrets too.
func (s *spec) plain(v reflect.Value) string {
	switch s.kind {
	case kSecret:
		return v.Interface().(Secret).text
	case kDuration:
		return FormatDuration(time.Duration(v.Int()))
	case kSize:
		return Size(v.Int()).String()
	case kFloat:
		return strconv.FormatFloat(v.Float(), 'g', -1, v.Type().Bits())
	case kText:
		text, err := v.Interface().(encoding.TextMarshaler).MarshalText()
		if err != nil {
			return ""
		}
		return string(text)
	case kList:
		items := make([]string, v.Len())
		for i := range items {
			items[i] = s.elem.quoted(v.Index(i))
		}
		return "[" + strings.Join(items, ", ") + "]"
	}
	return fmt.Sprint(v.Interface())
}

// shown is plain with secrets hidden.
func (s *spec) shown(v reflect.Value) string {
	text := s.plain(v)
	if s.secret && text != "" {
		return stars
	}
	return withoutUserinfo(text)
}

var plainSafe = regexp.MustCompile(`^[A-Za-z./_][A-Za-z0-9./_@+-]*$`)

// quoted is plain as YAML.
func (s *spec) quoted(v reflect.Value) string {
	text := s.plain(v)
	switch s.kind {
	case kString, kSecret, kText, kDuration, kSize:
		if s.kind == kDuration || s.kind == kSize {
			return text
		}
		return quote(text)
	}
	return text
}

// quote writes text so that YAML reads it back as that text.
func quote(text string) string {
	if plainSafe.MatchString(text) && !slices.Contains([]string{"true", "false", "null", "yes", "no", "on", "off", "."}, strings.ToLower(text)) {
		return text
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(text) // a string never fails
	return strings.TrimSuffix(b.String(), "\n")
}
