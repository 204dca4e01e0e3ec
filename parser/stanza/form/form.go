// Package form reads and writes data forms (XEP-0004) with their FORM_TYPE
// (XEP-0068).
//
// What a form is about is a struct; a Table ties its fields to the form's, so
// that what is shown, what is read and what is checked cannot disagree
// (table.go).
package form

import (
	"iter"
	"slices"
	"strconv"

	"parley/parser/stanza"
)

// FormType is the variable of the field that says what a form is about
// (XEP-0068 §3.1).
const FormType = "FORM_TYPE"

const (
	nsValidate = "http://jabber.org/protocol/xdata-validate"
	nsMedia    = "urn:xmpp:media-element"
)

// Kinds of forms (XEP-0004 §3.1).
const (
	Empty  = "form"
	Submit = "submit"
	Cancel = "cancel"
	Result = "result"
)

// Types of fields (XEP-0004 §3.3).
const (
	Boolean     = "boolean"
	Fixed       = "fixed"
	Hidden      = "hidden"
	JIDMulti    = "jid-multi"
	JIDSingle   = "jid-single"
	ListMulti   = "list-multi"
	ListSingle  = "list-single"
	TextMulti   = "text-multi"
	TextPrivate = "text-private"
	TextSingle  = "text-single"
)

// Bounds of a form that somebody sends.
const (
	MaxFields = 200
	MaxValues = 2000 // of all fields together
)

// Form is a data form.
type Form struct {
	Kind         string
	Type         string // FORM_TYPE; "" when there is none
	Title        string
	Instructions string
	Fields       []Field // without FORM_TYPE
}

// Field is one question, or one answer.
type Field struct {
	Var      string
	Type     string
	Label    string
	Required bool
	Values   []string
	Options  []Option
	Open     bool    // a list from which other values may be given, too (XEP-0122 §3.2.2)
	Range    *Range  // of an integer (XEP-0122 §3.2.3); nil: not told
	Media    []Media // what the question is about, the same in several types (XEP-0221 §2)
}

// Media is where something of a MIME type is.
type Media struct{ Type, URI string }

// Range is the least and the most that a number may be.
type Range struct{ Min, Max int }

// Option is one of the answers that a list offers.
type Option struct{ Value, Label string }

// In returns the first form among el's children, or nil.
func In(el *stanza.Element) *stanza.Element { return el.Child(stanza.NSDataForms, "x") }

// Parse reads <x/>, leniently: labels and options do not matter in what comes
// from a client. Errors are *stanza.Error: bad-request, policy-violation.
func Parse(x *stanza.Element) (*Form, error) {
	f := &Form{Kind: x.Get("type")}
	values := 0
	for el := range children(x, "field") {
		field := Field{Var: el.Get("var"), Type: el.Get("type")}
		for v := range children(el, "value") {
			field.Values = append(field.Values, v.Text())
		}
		values += len(field.Values)
		switch {
		case len(f.Fields) >= MaxFields || values > MaxValues:
			return nil, stanza.NewError(stanza.PolicyViolation, "the form is too long")
		case field.Var == FormType && len(field.Values) > 0:
			f.Type = field.Values[0]
		case field.Var != "" && field.Var != FormType:
			if _, twice := f.Field(field.Var); twice {
				return nil, stanza.NewError(stanza.BadRequest, "the field "+field.Var+" is there twice")
			}
			f.Fields = append(f.Fields, field)
		}
	}
	return f, nil
}

// Submitted is Parse for a form that is to be an answer of the type. A canceled
// one comes back with its Kind alone. Errors: bad-request when it is another
// form.
func Submitted(x *stanza.Element, formType string) (*Form, error) {
	f, err := Parse(x)
	switch {
	case err != nil:
		return nil, err
	case f.Kind == Cancel:
		return &Form{Kind: Cancel}, nil
	case f.Kind != Submit && f.Kind != "":
		return nil, stanza.NewError(stanza.BadRequest, "the form is not submitted")
	case f.Type != formType && (f.Type != "" || len(f.Fields) > 0):
		return nil, stanza.NewError(stanza.BadRequest, "the form's FORM_TYPE is not "+formType)
	}
	return f, nil
}

func children(el *stanza.Element, local string) iter.Seq[*stanza.Element] {
	return func(yield func(*stanza.Element) bool) {
		for c := range el.Elements() {
			if c.Name == (stanza.Name{Space: stanza.NSDataForms, Local: local}) && !yield(c) {
				return
			}
		}
	}
}

// Field returns the field of that name.
func (f *Form) Field(name string) (*Field, bool) {
	i := slices.IndexFunc(f.Fields, func(x Field) bool { return x.Var == name })
	if i < 0 {
		return nil, false
	}
	return &f.Fields[i], true
}

// Value is the first value of a field, or "".
func (f *Form) Value(name string) string {
	if x, ok := f.Field(name); ok && len(x.Values) > 0 {
		return x.Values[0]
	}
	return ""
}

// Add appends a field with its values and returns f.
func (f *Form) Add(typ, name, label string, values ...string) *Form {
	f.Fields = append(f.Fields, Field{Var: name, Type: typ, Label: label, Values: values})
	return f
}

// Element is <x/>.
func (f *Form) Element() *stanza.Element {
	x := el("x").With("type", f.Kind)
	text := func(name, s string) {
		if s != "" {
			x.Add(el(name).AddText(s))
		}
	}
	text("title", f.Title)
	text("instructions", f.Instructions)
	if f.Type != "" {
		x.Add(Field{Var: FormType, Type: Hidden, Values: []string{f.Type}}.element())
	}
	for _, field := range f.Fields {
		x.Add(field.element())
	}
	return x
}

func (f Field) element() *stanza.Element {
	out := el("field").WithOpt("var", f.Var).WithOpt("type", f.Type).WithOpt("label", f.Label)
	if f.Required {
		out.Add(el("required"))
	}
	for _, v := range f.Values {
		out.Add(el("value").AddText(v))
	}
	if f.Open {
		out.Add(stanza.El(nsValidate, "validate").With("datatype", "xs:string").Add(stanza.El(nsValidate, "open")))
	}
	if f.Range != nil {
		out.Add(stanza.El(nsValidate, "validate").With("datatype", "xs:integer").
			Add(stanza.El(nsValidate, "range").With("min", strconv.Itoa(f.Range.Min)).With("max", strconv.Itoa(f.Range.Max))))
	}
	if len(f.Media) > 0 {
		media := stanza.El(nsMedia, "media")
		for _, m := range f.Media {
			media.Add(stanza.El(nsMedia, "uri").With("type", m.Type).AddText(m.URI))
		}
		out.Add(media)
	}
	for _, o := range f.Options {
		out.Add(el("option").WithOpt("label", o.Label).Add(el("value").AddText(o.Value)))
	}
	return out
}

func el(local string) *stanza.Element { return stanza.El(stanza.NSDataForms, local) }
