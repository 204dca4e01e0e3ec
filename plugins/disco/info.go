package disco

import (
	"cmp"
	"crypto/sha1" //nolint:gosec // XEP-0115 §9.1: mandatory to implement
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"

	"parley/parser/stanza"
)

// Identity is what an entity is (XEP-0030 §3.1).
type Identity struct{ Category, Type, Lang, Name string }

// Field is one field of a Form.
type Field struct {
	Var    string
	Type   string // XEP-0004 §3.3; may be empty
	Label  string // for people; may be empty
	Values []string
}

// Form is extended information (XEP-0128 §2). Type is its FORM_TYPE
// (XEP-0068 §3); Fields do not contain it.
type Form struct {
	Type   string
	Fields []Field
}

// Facts are the content of a disco#info answer.
type Facts struct {
	Identities []Identity
	Features   []string
	Forms      []Form
}

// AddIdentity adds what the entity is.
func (f *Facts) AddIdentity(i Identity) {
	if !slices.Contains(f.Identities, i) {
		f.Identities = append(f.Identities, i)
	}
}

// AddFeature adds what the entity can do.
func (f *Facts) AddFeature(ns ...string) {
	for _, n := range ns {
		if !slices.Contains(f.Features, n) {
			f.Features = append(f.Features, n)
		}
	}
}

// AddForm adds extended information. There is one form of a type in an answer
// (XEP-0115 §5.4), so fields of several features go into the same one.
func (f *Facts) AddForm(form Form) {
	i := slices.IndexFunc(f.Forms, func(x Form) bool { return x.Type == form.Type })
	if i < 0 {
		f.Forms = append(f.Forms, form)
		return
	}
	f.Forms[i].Fields = append(slices.Clip(f.Forms[i].Fields), form.Fields...)
}

// Element returns the query element of the answer, for the node that was asked
// about.
func (f *Facts) Element(node string) *stanza.Element {
	q := stanza.El(stanza.NSDiscoInfo, "query").WithOpt("node", node)
	for _, i := range f.Identities {
		q.Add(stanza.El(stanza.NSDiscoInfo, "identity").With("category", i.Category).With("type", i.Type).WithOpt("name", i.Name).WithOpt("xml:lang", i.Lang))
	}
	for _, ns := range f.Features {
		q.Add(stanza.El(stanza.NSDiscoInfo, "feature").With("var", ns))
	}
	for _, form := range f.Forms {
		q.Add(form.element())
	}
	return q
}

// element is XEP-0128 §2.
func (f *Form) element() *stanza.Element {
	x := stanza.El(stanza.NSDataForms, "x").With("type", "result")
	x.Add(fieldElement(Field{Var: formType, Type: "hidden", Values: []string{f.Type}}))
	for _, field := range f.Fields {
		x.Add(fieldElement(field))
	}
	return x
}

func fieldElement(f Field) *stanza.Element {
	el := stanza.El(stanza.NSDataForms, "field").With("var", f.Var).WithOpt("type", f.Type).WithOpt("label", f.Label)
	for _, v := range f.Values {
		el.Add(stanza.El(stanza.NSDataForms, "value").AddText(v))
	}
	return el
}

const formType = "FORM_TYPE"

// errIllFormed says why an answer is not one to make a verification string of
// (XEP-0115 §5.4 step 3).
var errIllFormed = errors.New("ill-formed capabilities")

// Bounds of a client's answer. Real ones have some hundred features.
const (
	maxFactors     = 1024     // identities, features, fields and values of one answer
	maxFactorBytes = 64 << 10 // of the string that is hashed
)

// ParseFacts reads a disco#info result as XEP-0115 §5.4 wants it read: what
// is ambiguous is refused.
func ParseFacts(q *stanza.Element) (*Facts, error) {
	if q == nil || q.Name != (stanza.Name{Space: stanza.NSDiscoInfo, Local: "query"}) {
		return nil, fmt.Errorf("%w: no answer in it", errIllFormed)
	}
	if q.Count() > maxFactors {
		return nil, fmt.Errorf("%w: too long", errIllFormed)
	}
	f := &Facts{}
	for c := range q.Elements() {
		switch c.Name {
		case stanza.Name{Space: stanza.NSDiscoInfo, Local: "identity"}:
			i := Identity{c.Get("category"), c.Get("type"), c.Lang(), c.Get("name")}
			if slices.Contains(f.Identities, i) {
				return nil, fmt.Errorf("%w: the same identity twice", errIllFormed)
			}
			f.Identities = append(f.Identities, i)
		case stanza.Name{Space: stanza.NSDiscoInfo, Local: "feature"}:
			f.Features = append(f.Features, c.Get("var"))
		case stanza.Name{Space: stanza.NSDataForms, Local: "x"}:
			form, err := parseForm(c)
			if err != nil {
				return nil, err
			}
			if form == nil {
				continue
			}
			if slices.ContainsFunc(f.Forms, func(x Form) bool { return x.Type == form.Type }) {
				return nil, fmt.Errorf("%w: the same form twice", errIllFormed)
			}
			f.Forms = append(f.Forms, *form)
		}
	}
	slices.Sort(f.Features)
	if len(slices.Compact(slices.Clone(f.Features))) != len(f.Features) {
		return nil, fmt.Errorf("%w: the same feature twice", errIllFormed)
	}
	return f, nil
}

// parseForm returns nil for a form that is to be ignored (XEP-0115 §5.4 step
// 3.6).
func parseForm(x *stanza.Element) (*Form, error) {
	f, hidden := &Form{}, false
	for c := range x.Elements() {
		if c.Name != (stanza.Name{Space: stanza.NSDataForms, Local: "field"}) {
			continue
		}
		field := Field{Var: c.Get("var"), Type: c.Get("type")}
		for v := range c.Elements() {
			if v.Name == (stanza.Name{Space: stanza.NSDataForms, Local: "value"}) {
				field.Values = append(field.Values, v.Text())
			}
		}
		if len(field.Values) > maxFactors || len(f.Fields) > maxFactors {
			return nil, fmt.Errorf("%w: too long", errIllFormed)
		}
		if field.Var != formType {
			f.Fields = append(f.Fields, field)
			continue
		}
		if hidden {
			return nil, fmt.Errorf("%w: a form of two types", errIllFormed)
		}
		if len(slices.Compact(slices.Clone(field.Values))) > 1 {
			return nil, fmt.Errorf("%w: a form of two types", errIllFormed)
		}
		if hidden = field.Type == "hidden" && len(field.Values) > 0; hidden {
			f.Type = field.Values[0]
		}
	}
	if !hidden {
		return nil, nil
	}
	return f, nil
}

// factors are the parts of the string that is hashed, each of which is
// followed by '<' (XEP-0115 §5.1).
func (f *Facts) factors() []string {
	out := make([]string, 0, len(f.Identities)+len(f.Features)+8*len(f.Forms))
	ids := slices.Clone(f.Identities)
	slices.SortFunc(ids, func(a, b Identity) int {
		return cmp.Or(strings.Compare(a.Category, b.Category), strings.Compare(a.Type, b.Type), strings.Compare(a.Lang, b.Lang), strings.Compare(a.Name, b.Name))
	})
	for _, i := range ids {
		out = append(out, i.Category+"/"+i.Type+"/"+i.Lang+"/"+i.Name)
	}
	features := slices.Clone(f.Features)
	slices.Sort(features)
	out = append(out, features...)
	forms := slices.Clone(f.Forms)
	slices.SortFunc(forms, func(a, b Form) int { return strings.Compare(a.Type, b.Type) })
	for _, form := range forms {
		out = append(out, form.Type)
		fields := slices.Clone(form.Fields)
		slices.SortStableFunc(fields, func(a, b Field) int { return strings.Compare(a.Var, b.Var) })
		for _, field := range fields {
			values := slices.Clone(field.Values)
			slices.Sort(values)
			out = append(append(out, field.Var), values...)
		}
	}
	return out
}

// algorithms are the hash functions of XEP-0115 §8.1, by their IANA names.
var algorithms = map[string]func() hash.Hash{
	"sha-1":   sha1.New, // XEP-0115 §9.1
	"sha-224": sha256.New224,
	"sha-256": sha256.New,
	"sha-384": sha512.New384,
	"sha-512": sha512.New,
}

// Ver returns the verification string (XEP-0115 §5.1), or "" when the
// algorithm is unknown. algorithm is an IANA name, "sha-1".
func (f *Facts) Ver(algorithm string) string { return ver(algorithm, f.factors()) }

func ver(algorithm string, factors []string) string {
	mk, ok := algorithms[algorithm]
	if !ok {
		return ""
	}
	h := mk()
	for _, s := range factors {
		_, _ = h.Write([]byte(s))
		_, _ = h.Write([]byte{'<'})
	}
	return base64.StdEncoding.EncodeToString(h.Sum(nil))
}

// verify returns the factors of an answer when they are what the hash was made
// of. A factor with a '<' in it is refused, because it reads like two
// (XEP-0115 §5.4, note). What is left of the trick to move features into forms
// of one's own (XEP-0115 §9.3) gains nothing: whoever answers, the factors of
// one hash are the same, and it is the factors that are kept.
func verify(q *stanza.Element, h Hash) ([]string, error) {
	f, err := ParseFacts(q)
	if err != nil {
		return nil, err
	}
	factors := f.factors()
	size := 0
	for _, s := range factors {
		if size += len(s) + 1; strings.Contains(s, "<") {
			return nil, fmt.Errorf("%w: a '<'", errIllFormed)
		}
	}
	if len(factors) > maxFactors || size > maxFactorBytes {
		return nil, fmt.Errorf("%w: too long", errIllFormed)
	}
	if got := ver(h.Algorithm, factors); got != h.Ver {
		return nil, fmt.Errorf("%w: they hash to %q", errIllFormed, got)
	}
	slices.Sort(factors)
	return slices.Compact(factors), nil
}
