package usersearch

import (
	"context"
	"slices"
	"testing"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/vcard"
	"parley/storage"
	"parley/storage/storagetest"
)

func TestNamesAreFoundBy(t *testing.T) {
	for name, want := range map[string][]string{
		"":             nil,
		"Júliet  O'Ré": {"juliet", "o", "re"},
		"ｊｕｌｉｅｔ":       {"juliet"},
		"Straße":       {"strasse"},
		"李小龙 Bruce":    {"李小龙", "小龙", "龙", "bruce"},
		"a a A":        {"a"},
	} {
		if got := foundBy(name); !slices.Equal(got, want) {
			t.Errorf("%q is found by %q, want %q", name, got, want)
		}
	}
}

func TestWhoMaySearch(t *testing.T) {
	env := plugins.Env{Domains: plugins.NewDomains("verona.example", "mantua.example")}
	for _, c := range []struct {
		rule Who
		who  string
		may  bool
	}{
		{OwnDomain, "romeo@verona.example/garden", true},
		{OwnDomain, "romeo@mantua.example/garden", false},
		{OwnDomain, "verona.example", false},
		{OwnServer, "romeo@mantua.example/garden", true},
		{OwnServer, "romeo@elsewhere.example/garden", false},
		{Everybody, "romeo@elsewhere.example/garden", true},
		{Everybody, "elsewhere.example", false},
	} {
		s := service{env: env, cfg: Config{Who: c.rule}}
		if got := s.may(jid.MustParse(c.who), "verona.example"); got != c.may {
			t.Errorf("%s, %s: got %v", c.rule, c.who, got)
		}
	}
}

func card(nick string) *stanza.Element {
	return stanza.El(vcard.NS, "vCard").Add(stanza.El(vcard.NS, "NICKNAME").AddText(nick))
}

// only are the accounts that there are.
type only map[jid.JID]struct{}

func (o only) Exists(_ context.Context, account jid.JID) (bool, error) {
	_, there := o[account]
	return there, nil
}

// What was stored while the feature was not there is found later, and nothing newer is
// lost by that.
func TestCatchUp(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		ctx, env := t.Context(), plugins.Env{DB: db, Clock: plugins.SystemClock{}}
		for _, p := range []plugins.Plugin{vcard.Plugin, Plugin} {
			if err := db.Migrate(ctx, p.Name, p.Migrations); err != nil {
				t.Fatal(err)
			}
		}
		contract, err := vcard.Plugin.Contract(env)
		if err != nil {
			t.Fatal(err)
		}
		all := only{}
		s := &service{env: env, store: store{db}, cards: contract.(*vcard.Cards), accounts: all}
		set := func(account, nick string) vcard.Stored {
			t.Helper()
			owner := jid.MustParse(account)
			all[owner] = struct{}{}
			if err := s.cards.Set(ctx, owner, card(nick)); err != nil {
				t.Fatal(err)
			}
			c, err := s.cards.Stored(ctx, owner)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		found := func(nickname string) (out []string) {
			t.Helper()
			terms, err := (&entry{nick: nickname}).terms()
			if err != nil {
				t.Fatal(err)
			}
			all, err := s.store.find(ctx, "verona.example", terms, true, span{limit: 10})
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range all {
				out = append(out, e.account.Local())
			}
			return out
		}
		set("juliet@verona.example", "Rose")
		set("romeo@verona.example", "Rose")
		set("paris@mantua.example", "Rose")
		if got := found("rose"); got != nil {
			t.Errorf("found before: %q", got)
		}
		leave := s.cards.Beside(beside)
		old := set("juliet@verona.example", "Daisy")
		s.catchUp(ctx)
		if got := found("rose"); !slices.Equal(got, []string{"romeo"}) {
			t.Errorf("found after: %q", got)
		}
		set("juliet@verona.example", "Iris")
		if err := s.store.missed(ctx, vcard.Stored{Owner: old.Owner, Card: card("Tulip"), At: old.At - 1}, old.At); err != nil {
			t.Fatal(err)
		}
		if got := found("iris"); !slices.Equal(got, []string{"juliet"}) {
			t.Errorf("what was missed has replaced what is newer: %q", got)
		}
		leave()
		set("juliet@verona.example", "Lily")
		if got := found("lily"); got != nil {
			t.Errorf("the directory is still told: %q", got)
		}
		s.catchUp(ctx)
		if got := found("lily"); !slices.Equal(got, []string{"juliet"}) {
			t.Errorf("found after it was away: %q", got)
		}
		delete(all, old.Owner) // after it was looked for, and before it is noted
		if err := s.store.forget(ctx, old.Owner); err != nil {
			t.Fatal(err)
		}
		if err := s.add(ctx, vcard.Stored{Owner: old.Owner, Card: card("Lily"), At: old.At}, 0); err != nil {
			t.Fatal(err)
		}
		if got := found("lily"); got != nil {
			t.Errorf("an account that was removed meanwhile is found: %q", got)
		}
		if err := s.store.forget(ctx, old.Owner); err != nil {
			t.Fatal(err)
		}
		if got := found("lily"); got != nil {
			t.Errorf("an account that is gone is found: %q", got)
		}
	})
}

// What somebody has used up comes back, one search after the other.
func TestAllowance(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		ctx, s := t.Context(), store{db}
		if err := db.Migrate(ctx, Plugin.Name, migrations); err != nil {
			t.Fatal(err)
		}
		a := (&Config{PerHour: 60, Burst: 2}).allowance()
		now := plugins.SystemClock{}.Now()
		for i, want := range []bool{true, true, false, false} {
			if got, err := s.take(ctx, "romeo@localhost", now, a); err != nil || got != want {
				t.Errorf("search %d: %v, %v", i, got, err)
			}
		}
		now = now.Add(a.every)
		for i, want := range []bool{true, false} {
			if got, err := s.take(ctx, "romeo@localhost", now, a); err != nil || got != want {
				t.Errorf("search %d, a minute later: %v, %v", i, got, err)
			}
		}
		if err := s.expire(ctx, now.Add(3*a.every)); err != nil {
			t.Fatal(err)
		}
		var n int
		if err := db.QueryRow(ctx, `SELECT count(*) FROM user_search_rate`).Scan(&n); err != nil || n != 0 {
			t.Errorf("%d searchers are left, %v", n, err)
		}
	})
}

func FuzzInquiry(f *testing.F) {
	f.Add(`<query xmlns='jabber:iq:search'><first>Ro*</first><email>a@b</email></query>`)
	f.Add(`<query xmlns='jabber:iq:search'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>jabber:iq:search</value></field><field var='nick'><value>罗</value></field></x></query>`)
	f.Fuzz(func(t *testing.T, xml string) {
		q, err := stanza.ParseElement([]byte(xml), "")
		if err != nil {
			return
		}
		wanted, _, err := inquiry(q)
		if err != nil || wanted == nil {
			return
		}
		terms, err := wanted.terms()
		if err == nil && (len(terms) == 0 || len(terms) > maxTerms) {
			t.Errorf("%d terms of %q", len(terms), xml)
		}
		for _, c := range terms {
			if c.from == "" || c.from > c.to {
				t.Errorf("%q finds %+v", xml, c)
			}
		}
	})
}

func FuzzCard(f *testing.F) {
	f.Add(`<vCard xmlns='vcard-temp'><FN>罗密欧</FN><N><GIVEN>Romeo</GIVEN></N><EMAIL><USERID>a@b</USERID></EMAIL></vCard>`)
	f.Fuzz(func(t *testing.T, xml string) {
		card, err := stanza.ParseElement([]byte(xml), "")
		if err != nil {
			return
		}
		e, words := read(jid.MustParse("romeo@localhost"), card)
		for _, v := range e.values() {
			if len(v) > maxValue {
				t.Errorf("%d bytes are kept of %q", len(v), xml)
			}
		}
		for field, list := range words {
			if len(list) > maxWords || slices.Contains(list, "") {
				t.Errorf("%s of %q is found by %q", field, xml, list)
			}
		}
	})
}
