package archive

import (
	"cmp"
	"slices"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/parser/stanza/rsm"
	"parley/storage"
)

// query is what a client asks for (XEP-0313 §4): the row numbers it may lie
// between, exclusive, whom it is about, and the page.
type query struct {
	queryID  string
	after    int64 // exclusive; 0: from the beginning
	before   int64 // exclusive; 0: to the end
	ids      []int64
	with     party
	text     *wanted // nil: whatever they say
	known    []int64 // rows the client has named: they must exist
	max      int
	backward bool // the page at the end
	desc     bool // the newest first, of pages and of what is in them (XEP-0413)
	flip     bool
}

// errNotFound answers an id that is not in the archive (§4.1.3).
func errNotFound() error { return stanza.NewError(stanza.ItemNotFound, "no such message") }

func badRequest(text string) error { return stanza.NewError(stanza.BadRequest, text) }

// field is one of the form's (§4.1.5).
type field struct {
	form.Field
	read func(*reader, []string) error // gets at least one value
}

// fields are the form's, in its order.
func (a *Archive) fields() []field {
	all := []field{
		{form.Field{Var: "with", Type: form.JIDSingle}, (*reader).party},
		{form.Field{Var: "start", Type: form.TextSingle}, func(r *reader, v []string) error { return r.moment(v[0], 0, &r.q.after) }},
		{form.Field{Var: "end", Type: form.TextSingle}, func(r *reader, v []string) error { return r.moment(v[0], time.Microsecond, &r.q.before) }},
		{form.Field{Var: "before-id", Type: form.TextSingle}, func(r *reader, v []string) error { return r.below(v[0]) }},
		{form.Field{Var: "after-id", Type: form.TextSingle}, func(r *reader, v []string) error { return r.above(v[0]) }},
		{form.Field{Var: "ids", Type: form.ListMulti, Open: true}, (*reader).list},
		{form.Field{Var: "include-groupchat", Type: form.Boolean}, func(_ *reader, v []string) error { // what is in one is all of it (§4.1.4)
			if _, ok := form.ParseFlag(v[0]); !ok {
				return badRequest("include-groupchat is a boolean")
			}
			return nil
		}},
	}
	if a.searches() {
		all = append(all, field{form.Field{Var: "{" + nsText + "}fulltext", Type: form.TextSingle}, func(r *reader, v []string) (err error) {
			r.q.text, err = parseWanted(v[0])
			return err
		}})
	}
	return all
}

// form is the one to fill in (§4.1.5).
func (a *Archive) form() *stanza.Element {
	f := &form.Form{Kind: form.Empty, Type: NS}
	for _, x := range a.fields() {
		f.Fields = append(f.Fields, x.Field)
	}
	return stanza.El(NS, "query").Add(f.Element())
}

// reader reads one query.
type reader struct {
	mask   *storage.Mask
	with   func(jid.JID) party
	q      *query
	cap    int // of ids
	fields []field
}

// parseQuery reads <query/>; with is what an address in it means. Errors are
// stanza errors.
func (p *part) parseQuery(el *stanza.Element, with func(jid.JID) party) (*query, error) {
	r := &reader{mask: p.mask, with: with, cap: p.cfg.MaxPage, fields: p.fields(), q: &query{queryID: el.Get("queryid"), max: p.cfg.Page}}
	if el.Has("node") { // reserved for pubsub (§6.1.3)
		return nil, stanza.NewError(stanza.ItemNotFound, "there are no nodes here")
	}
	if x := form.In(el); x != nil {
		if err := r.form(x); err != nil {
			return nil, err
		}
	}
	if err := r.order(el); err != nil {
		return nil, err
	}
	if err := r.page(el); err != nil {
		return nil, err
	}
	r.q.max = min(r.q.max, p.cfg.MaxPage)
	r.q.flip = el.Child(NS, "flip-page") != nil
	return r.q, nil
}

func (r *reader) form(x *stanza.Element) error {
	f, err := form.Parse(x)
	switch {
	case err != nil:
		return err
	case f.Kind != form.Submit && f.Kind != "":
		return badRequest("the form is not submitted")
	case f.Type != NS && f.Type != "":
		return badRequest("the form is of another type")
	}
	for _, given := range f.Fields {
		i := slices.IndexFunc(r.fields, func(k field) bool { return k.Var == given.Var })
		switch {
		case i < 0: // §4.1.5
			return stanza.NewError(stanza.FeatureNotImplemented, "unknown field "+given.Var)
		case len(given.Values) == 0: // an empty field is none (XEP-0004 §3.3)
			continue
		}
		if err := r.fields[i].read(r, given.Values); err != nil {
			return err
		}
	}
	return nil
}

// party is with (§4.1.1).
func (r *reader) party(v []string) error {
	j, err := jid.Parse(v[0])
	if err != nil {
		return stanza.NewError(stanza.JIDMalformed, "")
	}
	r.q.with = r.with(j)
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

// below is before-id (§4.1.3).
func (r *reader) below(s string) error {
	id, err := r.id(s)
	if err == nil {
		lower(&r.q.before, id)
	}
	return err
}

// above is after-id.
func (r *reader) above(s string) error {
	id, err := r.id(s)
	if err == nil {
		r.q.after = max(r.q.after, id)
	}
	return err
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

// nsOrder is that of XEP-0413.
const nsOrder = "urn:xmpp:order-by:1"

// order reads <order/> (XEP-0413 §4). A message is never overwritten, so both
// orders are the same, and a second one has nothing to decide.
func (r *reader) order(el *stanza.Element) error {
	first := true
	for o := range el.Elements() {
		if o.Name != (stanza.Name{Space: nsOrder, Local: "order"}) {
			continue
		}
		if by := o.Get("by"); by != "creation" && by != "modification" {
			return stanza.NewError(stanza.FeatureNotImplemented, "ordered by creation or modification")
		}
		desc, ok := form.ParseFlag(cmp.Or(o.Get("desc"), "false"))
		if !ok {
			return badRequest("desc is a boolean")
		}
		if first {
			r.q.desc = desc
		}
		first = false
	}
	return nil
}

// page reads <set/> (XEP-0059 §2, XEP-0313 §4.3). In descending order a page goes
// the other way.
func (r *reader) page(el *stanza.Element) error {
	set, err := rsm.Parse(el)
	if err != nil {
		return err
	}
	r.q.backward = r.q.desc
	if set == nil {
		return nil
	}
	after, before := r.above, r.below
	if r.q.desc {
		after, before = before, after
	}
	if set.Max >= 0 {
		r.q.max = set.Max
	}
	if set.After != "" {
		if err := after(set.After); err != nil {
			return err
		}
	}
	if !set.Backward {
		return nil
	}
	r.q.backward = !r.q.desc
	if set.Before == "" { // the last page (§4.3.3)
		return nil
	}
	return before(set.Before)
}
