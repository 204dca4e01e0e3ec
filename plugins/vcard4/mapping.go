package vcard4

import (
	"slices"
	"strings"

	"parley/parser/stanza"
	"parley/plugins/vcard"
)

// root is the element of XEP-0292 §3.
var root = stanza.Name{Space: NS, Local: "vcard"}

// property says how one property looks in both formats (XEP-0292 §11). What its functions return nil for is not converted, and
// stays where it is.
type property struct {
	temp []string // in XEP-0054; the first one is written
	four string   // in RFC 6351
	to   func(*stanza.Element) *stanza.Element
	back func(*stanza.Element) *stanza.Element
}

// mapping is the table. Not in it: AGENT, CLASS, LABEL, MAILER, SORT-STRING, SOUND,
// which have no counterpart; PHOTO, which is the avatar feature's.
var mapping = []property{
	value("FN", "fn", "text", ""),
	parts("N", "n", pairs{{"FAMILY", "surname"}, {"GIVEN", "given"}, {"MIDDLE", "additional"}, {"PREFIX", "prefix"}, {"SUFFIX", "suffix"}}, nil),
	value("NICKNAME", "nickname", "text", ""),
	value("BDAY", "bday", "date", ""),
	parts("ADR", "adr", pairs{
		{"POBOX", "pobox"}, {"EXTADD", "ext"}, {"STREET", "street"}, {"LOCALITY", "locality"}, {"REGION", "region"}, {"PCODE", "code"}, {"CTRY", "country"},
	}, places),
	inner("TEL", "tel", "NUMBER", "uri", "tel:", slices.Concat(places, pairs{
		{"TEXT", "text"}, {"VOICE", "voice"}, {"FAX", "fax"}, {"CELL", "cell"}, {"VIDEO", "video"}, {"PAGER", "pager"}, {"TEXTPHONE", "textphone"},
	})),
	inner("EMAIL", "email", "USERID", "text", "", places),
	value("JABBERID", "impp", "uri", "xmpp:"),
	value("TZ", "tz", "text", ""),
	{[]string{"GEO"}, "geo", geoTo, geoBack},
	value("TITLE", "title", "text", ""),
	value("ROLE", "role", "text", ""),
	inner("LOGO", "logo", "EXTVAL", "uri", "", nil),
	inner("ORG", "org", "ORGNAME", "text", "", nil),
	inner("CATEGORIES", "categories", "KEYWORD", "text", "", nil),
	value("NOTE", "note", "text", "", "DESC"),
	value("PRODID", "prodid", "text", ""),
	value("REV", "rev", "timestamp", ""),
	value("UID", "uid", "uri", ""),
	value("URL", "url", "uri", ""),
	inner("KEY", "key", "CRED", "text", "", nil),
}

// pairs are names in XEP-0054 and in RFC 6351.
type pairs [][2]string

// places are the types of addresses that both formats know.
var places = pairs{{"HOME", "home"}, {"WORK", "work"}}

// value is a property whose text stands in an element of its type, behind a prefix.
func value(temp, four, typ, prefix string, more ...string) property {
	return property{
		temp: append([]string{temp}, more...), four: four,
		to: func(el *stanza.Element) *stanza.Element { return typed(four, typ, prefix, el.Text(), nil) },
		back: func(el *stanza.Element) *stanza.Element {
			if t, ok := untyped(el, typ, prefix); ok {
				return stanza.El(vcard.NS, temp).AddText(t)
			}
			return nil
		},
	}
}

// inner is a property whose text stands in an element in both formats; it may have
// types.
func inner(temp, four, in, typ, prefix string, types pairs) property {
	return property{
		temp: []string{temp}, four: four,
		to: func(el *stanza.Element) *stanza.Element {
			c := el.Child(vcard.NS, in)
			if c == nil {
				return nil
			}
			return typed(four, typ, prefix, c.Text(), parameters(el, types))
		},
		back: func(el *stanza.Element) *stanza.Element {
			t, ok := untyped(el, typ, prefix)
			if !ok {
				return nil
			}
			return stanza.El(vcard.NS, temp).Add(flags(el, types)...).Add(stanza.El(vcard.NS, in).AddText(t))
		},
	}
}

// parts is a property of several elements.
func parts(temp, four string, names, types pairs) property {
	return property{
		temp: []string{temp}, four: four,
		to: func(el *stanza.Element) *stanza.Element {
			out := stanza.El(NS, four).Add(parameters(el, types))
			return renamed(el, out, names, 0)
		},
		back: func(el *stanza.Element) *stanza.Element {
			out := stanza.El(vcard.NS, temp).Add(flags(el, types)...)
			return renamed(el, out, names, 1)
		},
	}
}

// renamed adds to out what el has of the names; from is the place of el's in a
// pair. nil when there is nothing.
func renamed(el, out *stanza.Element, names pairs, from int) *stanza.Element {
	some := false
	for _, p := range names {
		if c := el.Child(el.Name.Space, p[from]); c != nil {
			out.Add(stanza.El(out.Name.Space, p[1-from]).AddText(c.Text()))
			some = true
		}
	}
	if !some {
		return nil
	}
	return out
}

// typed is <four><typ>prefix text</typ></four>; nil without a text.
func typed(four, typ, prefix, text string, parameters *stanza.Element) *stanza.Element {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil
	}
	return stanza.El(NS, four).Add(parameters, stanza.El(NS, typ).AddText(prefix+text))
}

// untyped is the text in el; false: it has another type, or another prefix.
func untyped(el *stanza.Element, typ, prefix string) (string, bool) {
	c := el.Child(NS, typ)
	if c == nil {
		return "", false
	}
	text, ok := strings.CutPrefix(strings.TrimSpace(c.Text()), prefix)
	return text, ok && text != ""
}

// parameters are the types of an element in XEP-0054 as RFC 6351 has them; nil when
// there are none.
func parameters(el *stanza.Element, types pairs) *stanza.Element {
	out, list := stanza.El(NS, "parameters"), stanza.El(NS, "type")
	for _, p := range types {
		if el.Child(vcard.NS, p[0]) != nil {
			list.Add(stanza.El(NS, "text").AddText(p[1]))
		}
	}
	if list.Count() > 0 {
		out.Add(list)
	}
	if types != nil && el.Child(vcard.NS, "PREF") != nil {
		out.Add(stanza.El(NS, "pref").Add(stanza.El(NS, "integer").AddText("1")))
	}
	if out.Count() == 0 {
		return nil
	}
	return out
}

// flags are the types of an element in RFC 6351 as XEP-0054 has them.
func flags(el *stanza.Element, types pairs) (out []*stanza.Element) {
	has := map[string]bool{}
	parameters := el.Child(NS, "parameters")
	if parameters == nil || types == nil {
		return nil
	}
	for c := range parameters.Elements() {
		for t := range c.Elements() {
			has[c.Name.Local+" "+strings.ToLower(strings.TrimSpace(t.Text()))] = true
		}
	}
	for _, p := range types {
		if has["type "+p[1]] {
			out = append(out, stanza.El(vcard.NS, p[0]))
		}
	}
	if has["pref 1"] {
		out = append(out, stanza.El(vcard.NS, "PREF"))
	}
	return out
}

func geoTo(el *stanza.Element) *stanza.Element {
	lat, lon := el.Child(vcard.NS, "LAT"), el.Child(vcard.NS, "LON")
	if lat == nil || lon == nil {
		return nil
	}
	return typed("geo", "uri", "geo:", strings.TrimSpace(lat.Text())+","+strings.TrimSpace(lon.Text()), nil)
}

func geoBack(el *stanza.Element) *stanza.Element {
	t, ok := untyped(el, "uri", "geo:")
	lat, lon, two := strings.Cut(t, ",")
	if !ok || !two {
		return nil
	}
	lon, _, _ = strings.Cut(lon, ";") // RFC 5870 §3.3: parameters
	return stanza.El(vcard.NS, "GEO").Add(stanza.El(vcard.NS, "LAT").AddText(lat), stanza.El(vcard.NS, "LON").AddText(lon))
}

// direction is how one format becomes the other.
type direction struct {
	root     stanza.Name // of what comes out
	from, at func(*property) []string
	to, back func(*property) func(*stanza.Element) *stanza.Element
}

func inTemp(p *property) []string                             { return p.temp }
func inFour(p *property) []string                             { return []string{p.four} }
func forth(p *property) func(*stanza.Element) *stanza.Element { return p.to }
func hence(p *property) func(*stanza.Element) *stanza.Element { return p.back }

// The two.
var (
	fromTemp = direction{root, inTemp, inFour, forth, hence}
	toTemp   = direction{stanza.Name{Space: vcard.NS, Local: "vCard"}, inFour, inTemp, hence, forth}
)

// merge is what an account has in one format when it has stored card in the other.
// Properties that say the same there already stay as they are, and so does what
// cannot be said in card's format. have may be nil.
func merge(d direction, card, have *stanza.Element) *stanza.Element {
	out := stanza.El(d.root.Space, d.root.Local)
	if have != nil {
		out.Attrs = have.Attrs
	}
	taken := map[*stanza.Element]bool{}
	for i := range mapping {
		p := &mapping[i]
		now, _ := converted(card, d.from(p), d.to(p))
		old, of := converted(have, d.at(p), d.back(p))
		if says(now, d.back(p)) == says(old, nil) {
			continue
		}
		for _, el := range of {
			taken[el] = true
		}
		out.Add(now...)
	}
	if have != nil {
		var kept []stanza.Node
		for _, n := range have.Nodes {
			if n.Elem != nil && !taken[n.Elem] {
				kept = append(kept, n)
			}
		}
		out.Nodes = append(kept, out.Nodes...)
	}
	return out
}

// converted are the properties of those names in a card, in the other format, and
// of which elements they are.
func converted(card *stanza.Element, names []string, f func(*stanza.Element) *stanza.Element) (out, of []*stanza.Element) {
	if card == nil {
		return nil, nil
	}
	for el := range card.Elements() {
		if el.Name.Space != card.Name.Space || !slices.Contains(names, el.Name.Local) {
			continue
		}
		if c := f(el); c != nil {
			out, of = append(out, c), append(of, el)
		}
	}
	return out, of
}

// says is what properties are compared by: as they are, or as f makes them.
func says(list []*stanza.Element, f func(*stanza.Element) *stanza.Element) string {
	var b []byte
	for _, el := range list {
		if f != nil {
			el = f(el)
		}
		if el != nil {
			b = el.Append(b, "")
		}
	}
	return string(b)
}
