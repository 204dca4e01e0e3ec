package form

import (
	"slices"
	"strconv"
	"strings"

	"parley/parser/jid"
	"parley/parser/stanza"
)

// Binding ties a field of a form to a value of type T. Set gets at least one
// value, except for text-multi, jid-multi and list-multi, and returns why the
// values are none, for people.
type Binding[T any] struct {
	Field
	Get func(*T) []string
	Set func(*T, []string) (reason string)
}

// Table are the fields of a form in their order.
type Table[T any] []Binding[T]

// Form shows v: kind Empty with labels and options, to be filled in, or Result.
func (t Table[T]) Form(kind, formType string, v *T) *Form {
	f := &Form{Kind: kind, Type: formType}
	for _, b := range t {
		field := b.Field
		field.Values = b.Get(v)
		if kind == Result {
			field.Options, field.Required = nil, false
		}
		f.Fields = append(f.Fields, field)
	}
	return f
}

// Apply sets in v what the form says; what it does not mention stays. v is not
// to be used after an error, a *stanza.Error: bad-request for a field that is
// not in the table, not-acceptable for a value that is none.
func (t Table[T]) Apply(v *T, f *Form) error {
	for _, field := range f.Fields {
		i := slices.IndexFunc(t, func(b Binding[T]) bool { return b.Var == field.Var })
		switch {
		case field.Type == Fixed:
			continue
		case i < 0:
			return stanza.NewError(stanza.BadRequest, "unknown field "+field.Var)
		}
		b := t[i]
		values := field.Values
		if !b.multi() {
			if len(values) == 0 { // an empty field is none (XEP-0004 §3.3)
				continue
			}
			values = values[:1]
		}
		for _, s := range values {
			if len(b.Options) > 0 && !slices.ContainsFunc(b.Options, func(o Option) bool { return o.Value == s }) {
				return notAcceptable(b.Var, strconv.Quote(s)+" is not offered")
			}
		}
		if reason := b.Set(v, values); reason != "" {
			return notAcceptable(b.Var, reason)
		}
	}
	return nil
}

func (f Field) multi() bool {
	return f.Type == TextMulti || f.Type == JIDMulti || f.Type == ListMulti
}

func notAcceptable(field, reason string) error {
	return stanza.NewError(stanza.NotAcceptable, field+": "+reason)
}

// Bool binds a boolean (XEP-0004 §3.3: 0, 1, false, true).
func Bool[T any](name, label string, at func(*T) *bool) Binding[T] {
	return Binding[T]{
		Field: Field{Var: name, Type: Boolean, Label: label},
		Get:   func(v *T) []string { return []string{Flag(*at(v))} },
		Set: func(v *T, s []string) string {
			on, ok := ParseFlag(s[0])
			if !ok {
				return "is 0 or 1"
			}
			*at(v) = on
			return ""
		},
	}
}

// Flag is a boolean's wire form.
func Flag(on bool) string {
	if on {
		return "1"
	}
	return "0"
}

// ParseFlag reads a boolean (XEP-0004 §3.3).
func ParseFlag(s string) (on, ok bool) {
	switch strings.TrimSpace(s) {
	case "1", "true":
		return true, true
	case "0", "false":
		return false, true
	}
	return false, false
}

// Text binds a line of at most limit bytes.
func Text[T any](name, label string, limit int, at func(*T) *string) Binding[T] {
	return Binding[T]{
		Field: Field{Var: name, Type: TextSingle, Label: label},
		Get:   func(v *T) []string { return optional(*at(v)) },
		Set: func(v *T, s []string) string {
			if len(s[0]) > limit {
				return "has at most " + strconv.Itoa(limit) + " bytes"
			}
			*at(v) = s[0]
			return ""
		},
	}
}

// optional is no value for the empty string.
func optional(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// Number binds an integer between low and high.
func Number[T any](name, label string, low, high int, at func(*T) *int) Binding[T] {
	return Binding[T]{
		Field: Field{Var: name, Type: TextSingle, Label: label},
		Get:   func(v *T) []string { return []string{strconv.Itoa(*at(v))} },
		Set: func(v *T, s []string) string {
			n, err := strconv.Atoi(strings.TrimSpace(s[0]))
			if err != nil || n < low || n > high {
				return "is a number from " + strconv.Itoa(low) + " to " + strconv.Itoa(high)
			}
			*at(v) = n
			return ""
		},
	}
}

// Choice binds one of the options; S is the caller's type of their values.
func Choice[T any, S ~string](name, label string, at func(*T) *S, options ...Option) Binding[T] {
	return Binding[T]{
		Field: Field{Var: name, Type: ListSingle, Label: label, Options: options},
		Get:   func(v *T) []string { return optional(string(*at(v))) },
		Set:   func(v *T, s []string) string { *at(v) = S(s[0]); return "" },
	}
}

// JIDs binds a list of at most limit bare addresses.
func JIDs[T any](name, label string, limit int, at func(*T) *[]jid.JID) Binding[T] {
	return Binding[T]{
		Field: Field{Var: name, Type: JIDMulti, Label: label},
		Get: func(v *T) (out []string) {
			for _, j := range *at(v) {
				out = append(out, j.String())
			}
			return out
		},
		Set: func(v *T, s []string) string {
			var all []jid.JID
			for _, one := range s {
				j, err := jid.Parse(one)
				if err != nil {
					return strconv.Quote(one) + " is no address"
				}
				if j = j.Bare(); !slices.Contains(all, j) {
					all = append(all, j)
				}
			}
			if len(all) > limit {
				return "has at most " + strconv.Itoa(limit) + " addresses"
			}
			*at(v) = all
			return ""
		},
	}
}

// Texts binds a list of at most limit strings of at most size bytes each.
func Texts[T any](name, label string, limit, size int, at func(*T) *[]string) Binding[T] {
	return Binding[T]{
		Field: Field{Var: name, Type: TextMulti, Label: label},
		Get:   func(v *T) []string { return slices.Clone(*at(v)) },
		Set: func(v *T, s []string) string {
			if len(s) > limit || slices.ContainsFunc(s, func(one string) bool { return len(one) > size }) {
				return "has at most " + strconv.Itoa(limit) + " lines of " + strconv.Itoa(size) + " bytes"
			}
			*at(v) = slices.Clone(s)
			return ""
		},
	}
}
