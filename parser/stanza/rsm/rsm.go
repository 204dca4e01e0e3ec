// Package rsm pages through result sets (XEP-0059): by key, never by number.
package rsm

import (
	"errors"
	"slices"
	"strconv"

	"parley/parser/stanza"
)

// NS is the namespace of XEP-0059 §2.
const NS = "http://jabber.org/protocol/rsm"

// Request is what <set/> asks for.
type Request struct {
	Max      int    // negative: as many as the answerer likes; 0: only the count
	After    string // "": from the beginning
	Before   string // "" with Backward: the last page
	Backward bool
}

// Parse reads the <set/> among el's children; nil without one. Errors are
// *stanza.Error: bad-request, and feature-not-implemented for a page by number
// (§2.6).
func Parse(el *stanza.Element) (*Request, error) {
	set := el.Child(NS, "set")
	if set == nil {
		return nil, nil
	}
	q := &Request{Max: -1}
	if set.Child(NS, "index") != nil {
		return nil, stanza.NewError(stanza.FeatureNotImplemented, "pages have no numbers")
	}
	if m := set.Child(NS, "max"); m != nil {
		n, err := strconv.ParseUint(m.Text(), 10, 31)
		if err != nil && !errors.Is(err, strconv.ErrRange) { // a larger one is the largest
			return nil, stanza.NewError(stanza.BadRequest, "max is a number")
		}
		q.Max = int(n)
	}
	if a := set.Child(NS, "after"); a != nil {
		q.After = a.Text()
	}
	if b := set.Child(NS, "before"); b != nil {
		q.Before, q.Backward = b.Text(), true
	}
	return q, nil
}

// Limit is how many items the page has at most, never more than limit. A nil
// request asks for limit.
func (q *Request) Limit(limit int) int {
	if q == nil || q.Max < 0 {
		return limit
	}
	return min(q.Max, limit)
}

// Page tells the client where it is.
type Page struct {
	First, Last string // of the page's items; "": it is empty
	Index       int    // of First in the whole set; negative: not told
	Count       int    // of the whole set; negative: not told
}

// Element is <set/> (§2.2).
func (p Page) Element() *stanza.Element {
	set := stanza.El(NS, "set")
	if p.First != "" || p.Last != "" {
		first := stanza.El(NS, "first").AddText(p.First)
		if p.Index >= 0 {
			first.With("index", strconv.Itoa(p.Index))
		}
		set.Add(first, stanza.El(NS, "last").AddText(p.Last))
	}
	if p.Count >= 0 {
		set.Add(stanza.El(NS, "count").AddText(strconv.Itoa(p.Count)))
	}
	return set
}

// Of cuts a page of at most limit items out of all, which are in their order and
// whose keys differ. Errors: item-not-found for a key that is not there (§2.3).
func Of[T any](all []T, key func(T) string, q *Request, limit int) ([]T, Page, error) {
	from, to := 0, len(all)
	if q != nil {
		find := func(k string) (int, error) {
			i := slices.IndexFunc(all, func(x T) bool { return key(x) == k })
			if i < 0 {
				return 0, stanza.NewError(stanza.ItemNotFound, "there is no such place to go on from")
			}
			return i, nil
		}
		if q.After != "" {
			i, err := find(q.After)
			if err != nil {
				return nil, Page{}, err
			}
			from = i + 1
		}
		if q.Before != "" {
			i, err := find(q.Before)
			if err != nil {
				return nil, Page{}, err
			}
			to = max(i, from)
		}
	}
	if n := q.Limit(limit); to-from > n {
		if q != nil && q.Backward {
			from = to - n
		} else {
			to = from + n
		}
	}
	page, p := all[from:to], Page{Index: -1, Count: len(all)}
	if len(page) > 0 {
		p.First, p.Last, p.Index = key(page[0]), key(page[len(page)-1]), from
	}
	return page, p, nil
}
