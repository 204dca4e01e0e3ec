package muc

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/parser/stanza/rsm"
	"parley/storage"
)

// Namespaces of XEP-0433 §1: people look for public rooms by words.
const (
	nsSearchBase   = "urn:xmpp:channel-search:0"
	nsSearch       = nsSearchBase + ":search"
	nsSearchParams = nsSearchBase + ":search-params"
	nsSearchError  = nsSearchBase + ":error"
	nsSearchOrder  = nsSearchBase + ":order"
	nsAnonymity    = nsSearchBase + ":anonymity"
)

// Bounds of a search.
const (
	maxSearched     = 10_000 // rooms looked at, the first ones by address
	searchPage      = 100    // rooms in an answer
	maxQuery        = 256    // bytes of what is looked for
	maxTerms        = 10
	minTerm         = 2 // characters: two say much in Chinese
	maxSearches     = 2 // at the same time on one node
	searchRetry     = 5 // seconds
	sqlSearched     = `SELECT r.room, r.config, (SELECT count(DISTINCT o.nick) FROM muc_occupant o WHERE o.room = r.room AND o.role <> 'none') FROM muc_room r WHERE r.service = $1 AND r.listed ORDER BY r.room LIMIT $2`
	serviceTypeRoom = "xep-0045"
)

// order is how what was found is ordered.
type order string

const (
	byUsers   order = "{" + nsSearchOrder + "}nusers"
	byAddress order = "{" + nsSearchOrder + "}address"
)

// orders are those that are known.
var orders = map[order]func(a, b listing) int{
	byUsers:   func(a, b listing) int { return cmp.Or(cmp.Compare(b.users, a.users), byName(a.at, b.at)) },
	byAddress: func(a, b listing) int { return byName(a.at, b.at) },
}

// listing is a public room as it is found.
type listing struct {
	at    jid.JID
	users int
	cfg   *RoomConfig
}

// name is what people call it.
func (c listing) name() string { return cmp.Or(c.cfg.Name, c.at.Local()) }

// inquiry is what somebody looks for (XEP-0433 §6.1).
type inquiry struct {
	q                              string
	all                            bool
	inName, inDescription, inPlace bool
	minUsers                       int
	types                          []string
	key                            order
}

func searchForm() form.Table[inquiry] {
	return form.Table[inquiry]{
		form.Text("q", "Search for", maxQuery, func(i *inquiry) *string { return &i.q }),
		form.Bool("all", "Return all entries, whatever is searched for", func(i *inquiry) *bool { return &i.all }),
		form.Bool("sinname", "Search in names", func(i *inquiry) *bool { return &i.inName }),
		form.Bool("sindescription", "Search in descriptions", func(i *inquiry) *bool { return &i.inDescription }),
		form.Bool("sinaddr", "Search in addresses", func(i *inquiry) *bool { return &i.inPlace }), // §4.2.1
		form.Number("min_users", "Least number of users", 0, 1_000_000, func(i *inquiry) *int { return &i.minUsers }),
		{
			Field: form.Field{Var: "types", Type: form.ListMulti, Label: "Service types"},
			Get:   func(i *inquiry) []string { return i.types },
			Set:   func(i *inquiry, v []string) string { i.types = v; return "" },
		},
		{
			Field: form.Field{Var: "key", Type: form.ListSingle, Label: "Order"},
			Get:   func(i *inquiry) []string { return []string{string(i.key)} },
			Set:   func(i *inquiry, v []string) string { i.key = order(v[0]); return "" },
		},
	}
}

func anyRoom() inquiry {
	return inquiry{inName: true, inDescription: true, inPlace: true, minUsers: 1, types: []string{serviceTypeRoom}, key: byUsers}
}

// search answers at the service: with the form, or with what was found (XEP-0433 §4.2).
func (s *service) search(ctx context.Context, st *stanza.Stanza, q *stanza.Element) (*stanza.Element, error) {
	if st.Type != stanza.TypeGet {
		return nil, stanza.NewError(stanza.BadRequest, "a search is a get")
	}
	table, what := searchForm(), anyRoom()
	x := form.In(q)
	if x == nil {
		return stanza.El(nsSearch, "search").Add(emptySearch(table, &what).Element()), nil
	}
	f, err := form.Submitted(x, nsSearchParams)
	if err != nil {
		return nil, err
	}
	if place, ok := f.Field("sinaddress"); ok { // it has two names: the other one is in §6.1
		place.Var = "sinaddr"
	}
	if err := table.Apply(&what, known(f, table)); err != nil {
		return nil, err
	}
	terms, err := what.check(f)
	if err != nil {
		return nil, err
	}
	page, err := rsm.Parse(q)
	if err != nil {
		return nil, err
	}
	select {
	case s.extra.searches <- struct{}{}:
		defer func() { <-s.extra.searches }()
	default: // XEP-0433 §4.2.2.4
		e := stanza.NewError(stanza.ResourceConstraint, "too many searches at once; try again later")
		e.App = stanza.El(nsSearchError, "rate-limit").With("retry-after", strconv.Itoa(searchRetry))
		return nil, e
	}
	all, err := s.store.channels(ctx, st.To.Domain())
	if err != nil {
		return nil, err
	}
	return what.answer(all, terms, page)
}

func emptySearch(table form.Table[inquiry], what *inquiry) *form.Form {
	f := table.Form(form.Empty, nsSearchParams, what)
	types, _ := f.Field("types")
	types.Options = []form.Option{{Value: serviceTypeRoom, Label: "Rooms (XEP-0045)"}}
	key, _ := f.Field("key")
	key.Options = []form.Option{{Value: string(byUsers), Label: "Number of users"}, {Value: string(byAddress), Label: "Address"}}
	return f
}

// known leaves out what later versions of the form may have (XEP-0433 §6.1.1).
func known(f *form.Form, table form.Table[inquiry]) *form.Form {
	out := *f
	out.Fields = slices.DeleteFunc(slices.Clone(f.Fields), func(field form.Field) bool {
		return !slices.ContainsFunc(table, func(b form.Binding[inquiry]) bool { return b.Var == field.Var })
	})
	return &out
}

// refused is an error of XEP-0433 §4.2.2.
func refused(c stanza.Condition, why, text string) error {
	e := stanza.NewError(c, text)
	e.Type, e.App = stanza.Modify, stanza.El(nsSearchError, why)
	return e
}

// check reads the words of an inquiry.
func (i *inquiry) check(f *form.Form) (terms []string, err error) {
	_, asked := f.Field("q")
	if orders[i.key] == nil {
		return nil, refused(stanza.FeatureNotImplemented, "invalid-sort-key", "")
	}
	for word := range strings.FieldsSeq(strings.ToLower(i.q)) {
		if utf8.RuneCountInString(word) >= minTerm && !slices.Contains(terms, word) {
			terms = append(terms, word)
		}
	}
	switch {
	case i.all && i.q != "":
		e := refused(stanza.BadRequest, "conflicting-fields", "all rooms, or those that a word finds")
		v := func(name string) *stanza.Element { return stanza.El(nsSearchError, "var").AddText(name) }
		e.(*stanza.Error).App.Add(v("all"), v("q")) //nolint:errorlint,forcetypeassert // refused makes one
		return nil, e
	case i.all:
		if _, asked := f.Field("min_users"); !asked {
			i.minUsers = 0
		}
		return nil, nil
	case !asked:
		return nil, refused(stanza.BadRequest, "no-search-conditions", "search for what?")
	case len(terms) == 0 || len(terms) > maxTerms:
		return nil, refused(stanza.BadRequest, "invalid-search-terms", fmt.Sprintf("1 to %d words of %d characters or more", maxTerms, minTerm))
	case !i.inName && !i.inDescription && !i.inPlace:
		return nil, refused(stanza.BadRequest, "no-search-conditions", "search where?")
	}
	return terms, nil
}

// answer is a page of what fits.
func (i *inquiry) answer(all []listing, terms []string, page *rsm.Request) (*stanza.Element, error) {
	found := slices.DeleteFunc(all, func(c listing) bool { return !i.fits(c, terms) })
	slices.SortFunc(found, orders[i.key])
	some, p, err := rsm.Of(found, func(c listing) string { return c.at.String() }, page, searchPage)
	if err != nil {
		return nil, err
	}
	out := stanza.El(nsSearch, "result")
	for _, c := range some {
		out.Add(c.item())
	}
	return out.Add(p.Element()), nil
}

// fits reports whether each word is in one of the places.
func (i *inquiry) fits(c listing, terms []string) bool {
	if c.users < i.minUsers || !slices.Contains(i.types, serviceTypeRoom) {
		return false
	}
	var places []string
	add := func(in bool, text string) {
		if in {
			places = append(places, strings.ToLower(text))
		}
	}
	add(i.inName, c.name())
	add(i.inDescription, c.cfg.Description)
	add(i.inPlace, c.at.String())
	for _, t := range terms {
		if !slices.ContainsFunc(places, func(p string) bool { return strings.Contains(p, t) }) {
			return false
		}
	}
	return true
}

// item is XEP-0433 §6.2.
func (c listing) item() *stanza.Element {
	out := stanza.El(nsSearch, "item").With("address", c.at.String())
	text := func(local, s string) {
		if s != "" {
			out.Add(stanza.El(nsSearch, local).AddText(s))
		}
	}
	mode := "muc_semianonymous"
	if c.cfg.Whois == Anyone {
		mode = "{" + nsAnonymity + "}none"
	}
	text("name", c.name())
	text("description", c.cfg.Description)
	text("language", c.cfg.Lang)
	text("nusers", strconv.Itoa(c.users))
	text("service-type", serviceTypeRoom)
	text("is-open", strconv.FormatBool(!c.cfg.MembersOnly && !c.cfg.Protected))
	text("anonymity-mode", mode)
	return out
}

// channels are the public rooms of a service, as many as are looked at.
func (s *store) channels(ctx context.Context, service string) ([]listing, error) {
	out, err := storage.All(ctx, s.db, func(row storage.Row) (c listing, err error) {
		var at, config string
		if err = row.Scan(&at, &config, &c.users); err != nil {
			return c, err
		}
		if c.at, err = jid.Parse(at); err != nil {
			return c, err
		}
		c.cfg, err = decodeConfig(config)
		return c, err
	}, sqlSearched, service, maxSearched)
	if err != nil {
		return nil, fmt.Errorf("search for rooms: %w", err)
	}
	return out, nil
}
