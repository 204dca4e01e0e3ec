package rsm_test

import (
	"errors"
	"slices"
	"testing"

	"parley/parser/stanza"
	"parley/parser/stanza/rsm"
)

func request(t *testing.T, set string) (*rsm.Request, error) {
	t.Helper()
	el, err := stanza.ParseElement([]byte(`<query xmlns='urn:parley:test'>`+set+`</query>`), "")
	if err != nil {
		t.Fatal(err)
	}
	return rsm.Parse(el)
}

func TestPages(t *testing.T) {
	all := []string{"a", "b", "c", "d", "e"}
	for set, want := range map[string][]string{
		``: {"a", "b", "c"},
		`<set xmlns='http://jabber.org/protocol/rsm'><max>2</max></set>`:                       {"a", "b"},
		`<set xmlns='http://jabber.org/protocol/rsm'><max>100</max></set>`:                     {"a", "b", "c"},
		`<set xmlns='http://jabber.org/protocol/rsm'><max>99999999999999999999</max></set>`:    {"a", "b", "c"},
		`<set xmlns='http://jabber.org/protocol/rsm'><max>0</max></set>`:                       {},
		`<set xmlns='http://jabber.org/protocol/rsm'><max>2</max><after>b</after></set>`:       {"c", "d"},
		`<set xmlns='http://jabber.org/protocol/rsm'><max>2</max><before/></set>`:              {"d", "e"},
		`<set xmlns='http://jabber.org/protocol/rsm'><max>2</max><before>d</before></set>`:     {"b", "c"},
		`<set xmlns='http://jabber.org/protocol/rsm'><after>e</after></set>`:                   {},
		`<set xmlns='http://jabber.org/protocol/rsm'><after>d</after><before>b</before></set>`: {},
	} {
		q, err := request(t, set)
		if err != nil {
			t.Fatal(err)
		}
		got, p, err := rsm.Of(all, func(s string) string { return s }, q, 3)
		if err != nil || !slices.Equal(got, want) || p.Count != 5 {
			t.Errorf("%s: got %v %+v %v, want %v", set, got, p, err, want)
		}
		if len(want) > 0 && (p.First != want[0] || p.Last != want[len(want)-1] || all[p.Index] != want[0]) {
			t.Errorf("%s: got %+v", set, p)
		}
	}
}

func TestBadPages(t *testing.T) {
	for set, want := range map[string]stanza.Condition{
		`<set xmlns='http://jabber.org/protocol/rsm'><index>3</index></set>`: stanza.FeatureNotImplemented,
		`<set xmlns='http://jabber.org/protocol/rsm'><max>-1</max></set>`:    stanza.BadRequest,
		`<set xmlns='http://jabber.org/protocol/rsm'><max>many</max></set>`:  stanza.BadRequest,
		`<set xmlns='http://jabber.org/protocol/rsm'><after>z</after></set>`: stanza.ItemNotFound,
	} {
		q, err := request(t, set)
		if err == nil {
			_, _, err = rsm.Of([]string{"a"}, func(s string) string { return s }, q, 3)
		}
		var se *stanza.Error
		if !errors.As(err, &se) || se.Condition != want {
			t.Errorf("%s: got %v, want %s", set, err, want)
		}
	}
}
