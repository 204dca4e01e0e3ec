package nodearchive

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/parser/stanza/rsm"
	"parley/plugins/archive"
	"parley/plugins/pubsub"
)

// wanted is the form of a query (XEP-0313 §4.1.5); what is empty was not said.
type wanted struct {
	start, end, after, before string
	ids                       []string
}

const (
	maxField = 64
	maxIDs   = 100
)

// fields are the form's. Nothing is from or to somebody, so there is no with.
func fields() form.Table[wanted] {
	return form.Table[wanted]{
		form.Text("start", "Not published before", maxField, func(w *wanted) *string { return &w.start }),
		form.Text("end", "Not published after", maxField, func(w *wanted) *string { return &w.end }),
		form.Text("before-id", "Before the item of this id", maxField, func(w *wanted) *string { return &w.before }),
		form.Text("after-id", "After the item of this id", maxField, func(w *wanted) *string { return &w.after }),
		form.Texts("ids", "The items of these ids", maxIDs, maxField, func(w *wanted) *[]string { return &w.ids }),
	}
}

func shape() *stanza.Element {
	return stanza.El(archive.NS, "query").Add(fields().Form(form.Empty, archive.NS, &wanted{}).Element())
}

// place is the id of an item in the archive.
func place(it *pubsub.Item) string { return strconv.FormatInt(it.Place(), 10) }

// placeOf reads one. That of an item which is gone, or was published again, still
// says where to go on.
func placeOf(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n <= 0 {
		return 0, stanza.NewError(stanza.ItemNotFound, "there is no such item in the archive")
	}
	return n, nil
}

// parse reads <query/>. Errors are *stanza.Error.
func (a *nodeArchive) parse(query *stanza.Element) (pubsub.Chronicle, error) {
	q := pubsub.Chronicle{Limit: a.cfg.Page, Size: int(a.cfg.PageSize)}
	if x := form.In(query); x != nil {
		if err := read(x, &q); err != nil {
			return q, err
		}
	}
	page, err := rsm.Parse(query)
	if err != nil || page == nil {
		return q, err
	}
	if page.Max >= 0 {
		q.Limit = page.Limit(a.cfg.MaxPage)
	}
	q.Backward = page.Backward
	return q, errors.Join(bound(page.After, &q.After, later), bound(page.Before, &q.Before, earlier))
}

// read reads the form (XEP-0313 §4.1).
func read(x *stanza.Element, q *pubsub.Chronicle) error {
	f, err := form.Submitted(x, archive.NS)
	if err != nil {
		return err
	}
	var w wanted
	if err := fields().Apply(&w, f); err != nil {
		var se *stanza.Error
		if errors.As(err, &se) && se.Condition == stanza.BadRequest { // §4.1.5: a field that is not offered
			return stanza.NewError(stanza.FeatureNotImplemented, se.Text)
		}
		return err
	}
	for _, s := range w.ids {
		n, err := placeOf(s)
		if err != nil {
			return err
		}
		q.Places = append(q.Places, n)
	}
	return errors.Join(
		moment("start", w.start, &q.Start), moment("end", w.end, &q.End),
		bound(w.after, &q.After, later), bound(w.before, &q.Before, earlier))
}

func moment(name, s string, to *time.Time) error {
	if s == "" {
		return nil
	}
	t, err := time.Parse(time.RFC3339Nano, s) // XEP-0082 §3.2
	if err != nil || t.Year() > 9000 || t.Year() < 1970 {
		return stanza.NewError(stanza.BadRequest, fmt.Sprintf("%s is no date and time as in 2026-11-26T12:00:00Z", name))
	}
	*to = t
	return nil
}

func later(a, b int64) int64 { return max(a, b) }
func earlier(a, b int64) int64 {
	if a == 0 {
		return b
	}
	return min(a, b)
}

// bound makes a bound stricter.
func bound(s string, to *int64, stricter func(a, b int64) int64) error {
	if s == "" {
		return nil
	}
	n, err := placeOf(s)
	if err == nil {
		*to = stricter(*to, n)
	}
	return err
}

// fin ends the results (XEP-0313 §4.3).
func fin(items []*pubsub.Item, complete bool) *stanza.Element {
	p := rsm.Page{Index: -1, Count: -1}
	if k := len(items); k > 0 {
		p.First, p.Last = place(items[0]), place(items[k-1])
	}
	el := stanza.El(archive.NS, "fin").Add(p.Element())
	if complete {
		el.With("complete", "true")
	}
	return el
}
