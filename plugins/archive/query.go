package archive

import (
	"errors"
	"strconv"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/storage"
)

// Namespaces of what a query is made of.
const (
	nsRSM      = "http://jabber.org/protocol/rsm"
	nsValidate = "http://jabber.org/protocol/xdata-validate"
)

// query is what a client asks for (XEP-0313 §4): the row numbers it may lie
// between, exclusive, whom it is about, and the page.
type query struct {
	queryID  string
	after    int64 // exclusive; 0: from the beginning
	before   int64 // exclusive; 0: to the end
	ids      []int64
	with     jid.JID
	known    []int64 // rows the client has named: they must exist
	max      int
	backward bool // the page at the end
	flip     bool
}

// errNotFound answers an id that is not in the archive (§4.1.3).
func errNotFound() error { return stanza.NewError(stanza.ItemNotFound, "no such message") }

func badRequest(text string) error { return stanza.NewError(stanza.BadRequest, text) }

// fields are the form's, by name.
var fields = map[string]func(*reader, []string) error{
	"FORM_TYPE": func(_ *reader, v []string) error {
		if v[0] != NS {
			return badRequest("the form is of another type")
		}
		return nil
	},
	"with":  (*reader).with,
	"start": func(r *reader, v []string) error { return r.moment(v[0], 0, &r.q.after) },
	"end":   func(r *reader, v []string) error { return r.moment(v[0], time.Microsecond, &r.q.before) },
	"before-id": func(r *reader, v []string) error {
		return r.bound(v[0], &r.q.before)
	},
	"after-id": func(r *reader, v []string) error { return r.bound(v[0], &r.q.after) },
	"ids":      (*reader).list,
	"include-groupchat": func(_ *reader, v []string) error { // there are none (§4.1.4)
		switch v[0] {
		case "true", "false", "0", "1":
			return nil
		}
		return badRequest("include-groupchat is a boolean")
	},
}

// reader reads one query.
type reader struct {
	mask *storage.Mask
	q    *query
	cap  int // of ids
}

// parseQuery reads <query/>. Errors are stanza errors.
func (p *part) parseQuery(el *stanza.Element) (*query, error) {
	r := &reader{mask: p.mask, cap: p.cfg.MaxPage, q: &query{queryID: el.Get("queryid"), max: p.cfg.Page}}
	if el.Has("node") { // reserved for pubsub (§6.1.3)
		return nil, stanza.NewError(stanza.ItemNotFound, "there are no nodes here")
	}
	if x := el.Child(stanza.NSDataForms, "x"); x != nil {
		if err := r.form(x); err != nil {
			return nil, err
		}
	}
	if set := el.Child(nsRSM, "set"); set != nil {
		if err := r.page(set); err != nil {
			return nil, err
		}
	}
	r.q.max = min(r.q.max, p.cfg.MaxPage)
	r.q.flip = el.Child(NS, "flip-page") != nil
	return r.q, nil
}

func (r *reader) form(x *stanza.Element) error {
	if t := x.Get("type"); t != "submit" && t != "" {
		return badRequest("the form is not submitted")
	}
	for f := range x.Elements() {
		if f.Name != (stanza.Name{Space: stanza.NSDataForms, Local: "field"}) {
			continue
		}
		read, ok := fields[f.Get("var")]
		if !ok { // §4.1.5
			return stanza.NewError(stanza.FeatureNotImplemented, "unknown field")
		}
		var values []string
		for v := range f.Elements() {
			if v.Name.Local == "value" {
				values = append(values, v.Text())
			}
		}
		if len(values) == 0 { // an empty field is none (XEP-0004 §3.3)
			continue
		}
		if err := read(r, values); err != nil {
			return err
		}
	}
	return nil
}

// with is §4.1.1.
func (r *reader) with(v []string) (err error) {
	if r.q.with, err = jid.Parse(v[0]); err != nil {
		return stanza.NewError(stanza.JIDMalformed, "")
	}
	return nil
}

// moment is §4.1.2: start is exclusive below its first id, end above its last.
func (r *reader) moment(s string, past time.Duration, to *int64) error {
	t, err := time.Parse(time.RFC3339Nano, s) // XEP-0082 §3.2
	if err != nil {
		return badRequest("not a time of XEP-0082")
	}
	if past == 0 {
		*to = max(*to, idAt(ceil(t))-1, 0)
		return nil
	}
	lower(to, max(idAt(t.Add(past)), 1))
	return nil
}

// ceil rounds up to what ids know of time.
func ceil(t time.Time) time.Time {
	if down := t.Truncate(time.Microsecond); !down.Equal(t) {
		return down.Add(time.Microsecond)
	}
	return t
}

// lower makes an upper bound stricter.
func lower(to *int64, id int64) {
	if *to == 0 || id < *to {
		*to = id
	}
}

func (r *reader) id(s string) (int64, error) {
	id, ok := r.mask.Decode(s)
	if !ok {
		return 0, errNotFound()
	}
	r.q.known = append(r.q.known, id)
	return id, nil
}

// bound is before-id and after-id (§4.1.3), and RSM's before and after.
func (r *reader) bound(s string, to *int64) error {
	id, err := r.id(s)
	if err != nil {
		return err
	}
	if to == &r.q.before {
		lower(to, id)
	} else {
		*to = max(*to, id)
	}
	return nil
}

func (r *reader) list(v []string) error {
	if len(v) > r.cap {
		return stanza.NewError(stanza.PolicyViolation, "too many ids")
	}
	for _, s := range v {
		id, err := r.id(s)
		if err != nil {
			return err
		}
		r.q.ids = append(r.q.ids, id)
	}
	return nil
}

// page reads <set/> (XEP-0059 §2, XEP-0313 §4.3).
func (r *reader) page(set *stanza.Element) error {
	if set.Child(nsRSM, "index") != nil { // XEP-0059 §2.6: only by key
		return stanza.NewError(stanza.FeatureNotImplemented, "pages have no numbers")
	}
	if el := set.Child(nsRSM, "max"); el != nil {
		n, err := strconv.Atoi(el.Text())
		if errors.Is(err, strconv.ErrRange) && n > 0 {
			err = nil
		}
		if err != nil || n < 0 {
			return badRequest("max is a number")
		}
		r.q.max = n
	}
	if el := set.Child(nsRSM, "after"); el != nil && el.Text() != "" {
		if err := r.bound(el.Text(), &r.q.after); err != nil {
			return err
		}
	}
	el := set.Child(nsRSM, "before")
	if el == nil {
		return nil
	}
	r.q.backward = true
	if el.Text() == "" { // the last page (§4.3.3)
		return nil
	}
	return r.bound(el.Text(), &r.q.before)
}

// form tells which fields there are (§4.1.5).
func form() *stanza.Element {
	field := func(typ, name string) *stanza.Element {
		return stanza.El(stanza.NSDataForms, "field").With("type", typ).With("var", name)
	}
	x := stanza.El(stanza.NSDataForms, "x").With("type", "form").Add(
		field("hidden", "FORM_TYPE").Add(stanza.El(stanza.NSDataForms, "value").AddText(NS)),
		field("jid-single", "with"),
		field("text-single", "start"),
		field("text-single", "end"),
		field("text-single", "before-id"),
		field("text-single", "after-id"),
		field("list-multi", "ids").Add(stanza.El(nsValidate, "validate").With("datatype", "xs:string").Add(stanza.El(nsValidate, "open"))),
		field("boolean", "include-groupchat"),
	)
	return stanza.El(NS, "query").Add(x)
}
