package accounts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/parser/jid"
	"parley/plugins"
	"parley/router/sessions"
	"parley/storage"
	"parley/storage/storagetest"
	"parley/stream/sasl"
)

// clock stands still until it is moved.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// AfterFunc never fires: these tests call what it would.
func (c *clock) AfterFunc(time.Duration, func()) func() bool { return func() bool { return true } }

// counted counts look-ups.
type counted struct {
	storage.DB
	mu      sync.Mutex
	queries int
}

func (d *counted) QueryRow(ctx context.Context, sql string, args ...any) storage.Row {
	d.mu.Lock()
	d.queries++
	d.mu.Unlock()
	return d.DB.QueryRow(ctx, sql, args...)
}

func (d *counted) Query(ctx context.Context, sql string, args ...any) (storage.Rows, error) {
	d.mu.Lock()
	d.queries++
	d.mu.Unlock()
	return d.DB.Query(ctx, sql, args...)
}

func (d *counted) take() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := d.queries
	d.queries = 0
	return n
}

type bench struct {
	t     *testing.T
	ctx   context.Context
	env   plugins.Env
	db    *counted
	clock *clock
	log   *bytes.Buffer
	*Accounts
}

// each runs f on every database.
func each(t *testing.T, f func(*bench)) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		if err := db.Migrate(t.Context(), Name, migrations); err != nil {
			t.Fatal(err)
		}
		b := &bench{t: t, ctx: t.Context(), db: &counted{DB: db}, clock: &clock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}, log: &bytes.Buffer{}}
		b.env = plugins.Env{
			Node: "test", Domains: plugins.NewDomains("capulet.example", "montague.example"), DB: b.db, Clock: b.clock,
			Log: slog.New(slog.NewTextHandler(b.log, nil)), Metrics: prometheus.NewRegistry(), Sessions: sessions.NewRegistry(),
		}
		var err error
		if b.Accounts, err = newAccounts(b.env); err != nil {
			t.Fatal(err)
		}
		b.iterations.Store(sasl.MinIterations)
		f(b)
	})
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) is(err, want error) {
	b.t.Helper()
	if !errors.Is(err, want) {
		b.t.Fatalf("error is %v, want %v", err, want)
	}
}

func (b *bench) exists(j jid.JID) bool {
	b.t.Helper()
	ok, err := b.Exists(b.ctx, j)
	b.must(err)
	return ok
}

var (
	juliet = jid.MustParse("juliet@capulet.example")
	romeo  = jid.MustParse("romeo@montague.example")
)

func TestLife(t *testing.T) {
	each(t, func(b *bench) {
		keys := keyring{b.Accounts, "capulet.example"}
		b.must(b.Create(b.ctx, juliet, "R0m30-sweet"))
		b.is(b.Create(b.ctx, juliet, "another"), ErrExists)
		if !b.exists(juliet) || b.exists(romeo) {
			t.Fatal("juliet exists, romeo does not")
		}
		for h, size := range map[sasl.Hash]int{sasl.SHA1: 20, sasl.SHA256: 32, sasl.AnyHash: 32} {
			k, err := keys.Keys(b.ctx, "juliet", h)
			b.must(err)
			want, err := sasl.Derive("R0m30-sweet", k.Salt, k.Iterations, k.Hash)
			b.must(err)
			if len(k.StoredKey) != size || k.Iterations != sasl.MinIterations || !bytes.Equal(k.StoredKey, want.StoredKey) || !bytes.Equal(k.ServerKey, want.ServerKey) {
				t.Fatalf("keys for %v are not the password's", h)
			}
		}
		_, err := keys.Keys(b.ctx, "romeo", sasl.SHA256)
		b.is(err, sasl.ErrUnknownUser)

		b.must(b.Disable(b.ctx, juliet))
		k, err := keys.Keys(b.ctx, "juliet", sasl.SHA256)
		b.is(err, sasl.ErrDisabled)
		if k.StoredKey == nil {
			t.Fatal("no keys of a disabled account: who proves the password could not be told")
		}
		if !b.exists(juliet) {
			t.Fatal("a disabled account exists for others (rule 35)")
		}
		acc, err := b.Show(b.ctx, juliet)
		b.must(err)
		if !acc.Disabled.Equal(b.clock.Now()) || !acc.Created.Equal(b.clock.Now()) || !acc.LastLogin.IsZero() {
			t.Fatalf("shown %+v", acc)
		}
		b.must(b.Enable(b.ctx, juliet))
		_, err = keys.Keys(b.ctx, "juliet", sasl.SHA256)
		b.must(err)

		b.must(b.SetPassword(b.ctx, juliet, "a rose by any other name"))
		after, err := keys.Keys(b.ctx, "juliet", sasl.SHA256)
		b.must(err)
		if bytes.Equal(after.StoredKey, k.StoredKey) || bytes.Equal(after.Salt, k.Salt) {
			t.Fatal("keys are the old password's")
		}
		for _, err := range []error{b.SetPassword(b.ctx, romeo, "secret-123"), b.Disable(b.ctx, romeo), b.Enable(b.ctx, romeo), b.Delete(b.ctx, romeo)} {
			b.is(err, ErrUnknown)
		}
		_, err = b.Show(b.ctx, romeo)
		b.is(err, ErrUnknown)
	})
}

func TestNamesAndPasswords(t *testing.T) {
	each(t, func(b *bench) {
		for _, name := range []string{"capulet.example", "juliet@capulet.example/balcony", "juliet@elsewhere.example"} {
			b.is(b.Create(b.ctx, jid.MustParse(name), "secret-123"), ErrName)
			if b.exists(jid.MustParse(name)) {
				t.Fatalf("%s exists", name)
			}
		}
		for _, password := range []string{"", strings.Repeat("x", 1025), "a\x00b", "\xff"} {
			b.is(b.Create(b.ctx, juliet, password), ErrPassword)
			b.is(b.SetPassword(b.ctx, juliet, password), ErrPassword)
		}
		if b.exists(juliet) {
			t.Fatal("an account was made of a password that is none")
		}
	})
}

// Rule 34: one account, however its name is written.
func TestRule34PreparedName(t *testing.T) {
	each(t, func(b *bench) {
		b.must(b.Create(b.ctx, jid.MustParse("Juliet@Capulet.EXAMPLE"), "secret-123"))
		b.is(b.Create(b.ctx, jid.MustParse("JULIET@capulet.example"), "secret-123"), ErrExists)
		name, err := keyring{b.Accounts, "capulet.example"}.username("JuLiEt")
		b.must(err)
		if name != "juliet" {
			t.Fatalf("prepared %q", name)
		}
	})
}

// A password is in no table and no log.
func TestSecurityNoPasswordStored(t *testing.T) {
	each(t, func(b *bench) {
		const password = "wherefore-art-thou"
		b.must(b.Create(b.ctx, juliet, password))
		b.must(b.SetPassword(b.ctx, juliet, password))
		for _, table := range []string{"account", "account_key", "account_token"} {
			if strings.Contains(dump(b, table), password) {
				t.Fatalf("%s holds the password", table)
			}
		}
		if strings.Contains(b.log.String(), password) {
			t.Fatal("the log holds the password")
		}
	})
}

// dump prints a table's texts and blobs.
func dump(b *bench, table string) string {
	columns := map[string]string{
		"account":       "jid, skeleton",
		"account_key":   "jid, salt, stored_key, server_key",
		"account_token": "jid, client, secret",
	}[table]
	rows, err := b.db.Query(b.ctx, "SELECT "+columns+" FROM "+table)
	b.must(err)
	defer rows.Close()
	var out strings.Builder
	for rows.Next() {
		cells := make([][]byte, strings.Count(columns, ",")+1)
		dest := make([]any, len(cells))
		for i := range cells {
			dest[i] = &cells[i]
		}
		b.must(rows.Scan(dest...))
		fmt.Fprintf(&out, "%s\n", cells)
	}
	b.must(rows.Err())
	return out.String()
}

func TestListPagesByKey(t *testing.T) {
	each(t, func(b *bench) {
		keys, err := b.derive(b.ctx, "secret-123")
		b.must(err)
		for _, name := range []string{"c", "a", "e", "b", "d"} {
			b.must(b.store.insert(b.ctx, jid.MustParse(name+"@capulet.example"), b.clock.Now(), keys))
			b.must(b.store.insert(b.ctx, jid.MustParse(name+"@montague.example"), b.clock.Now(), keys))
		}
		b.must(b.store.mark(b.ctx, jid.MustParse("d@capulet.example"), b.clock.Now()))
		var got []string
		after := jid.JID{}
		for range 10 {
			page, err := b.List(b.ctx, "capulet.example", after, 2)
			b.must(err)
			if len(page) == 0 {
				break
			}
			for _, acc := range page {
				got = append(got, acc.JID.Local())
			}
			after = page[len(page)-1].JID
		}
		if fmt.Sprint(got) != "[a b c e]" {
			t.Fatalf("listed %v", got)
		}
		n, err := b.Count(b.ctx, "capulet.example")
		b.must(err)
		if n != 4 {
			t.Fatalf("counted %d", n)
		}
	})
}

// Names that do not exist cost no more than others, and what changes here is
// seen at once.
func TestExistsIsCached(t *testing.T) {
	each(t, func(b *bench) {
		b.exists(juliet)
		b.db.take()
		for range 10 {
			b.exists(juliet)
		}
		if n := b.db.take(); n != 0 {
			t.Fatalf("%d look-ups of a name that was looked up before", n)
		}
		b.must(b.Create(b.ctx, juliet, "secret-123"))
		if !b.exists(juliet) {
			t.Fatal("the negative answer outlived the creation")
		}
		b.must(b.store.mark(b.ctx, juliet, b.clock.Now())) // by another node
		if !b.exists(juliet) {
			t.Fatal("not cached")
		}
		b.clock.move(stateTTL)
		if b.exists(juliet) {
			t.Fatal("another node's change was never noticed")
		}
	})
}

// A reconnect storm costs no queries, whether the names exist or not
// (RFC 6120 §13.11), and what ends a login is in force when it returns. On
// Postgres another node may have done that: each login asks.
func TestReliability08KeysAreCached(t *testing.T) {
	each(t, func(b *bench) {
		keys := keyring{b.Accounts, "capulet.example"}
		b.must(b.Create(b.ctx, juliet, "R0m30-sweet"))
		ask := func(name string, want error) sasl.Keys {
			t.Helper()
			k, err := keys.Keys(b.ctx, name, sasl.SHA256)
			b.is(err, want)
			return k
		}
		for _, c := range []struct {
			name string
			err  error
		}{{"juliet", nil}, {"nobody", sasl.ErrUnknownUser}} {
			b.db.take()
			for range 10 {
				ask(c.name, c.err)
			}
			want := 1
			if b.db.Dialect() == storage.Postgres {
				want = 10
			}
			if n := b.db.take(); n != want {
				t.Errorf("%s: %d look-ups for ten logins, want %d", c.name, n, want)
			}
		}
		old := ask("juliet", nil)
		b.must(b.SetPassword(b.ctx, juliet, "a rose by any other name"))
		if k := ask("juliet", nil); bytes.Equal(k.StoredKey, old.StoredKey) {
			t.Error("the old password is good after it was changed")
		}
		b.must(b.Disable(b.ctx, juliet))
		ask("juliet", sasl.ErrDisabled)
		b.must(b.Enable(b.ctx, juliet))
		ask("juliet", nil)
		b.must(b.mark(b.ctx, juliet))
		ask("juliet", sasl.ErrUnknownUser)
		ask("nobody", sasl.ErrUnknownUser)
		b.must(b.Create(b.ctx, jid.MustParse("nobody@capulet.example"), "R0m30-sweet"))
		ask("nobody", nil)
		b.clock.move(stateTTL)
		b.db.take()
		ask("nobody", nil)
		if b.db.take() != 1 {
			t.Error("cached for longer than a minute")
		}
	})
}

func TestSkeleton(t *testing.T) {
	if a, b := len([]rune(lookalikes)), len(latin); a != b {
		t.Fatalf("%d letters look like %d", a, b)
	}
	for _, row := range []struct {
		a, b  string
		alike bool
	}{
		{"paypal", "paypa1", true},
		{"coco", "сосо", true}, // Cyrillic
		{"bob", "b0b", true},
		{"modem", "rnodern", true},
		{"jose", "josé", true},
		{"wow", "vvovv", true},
		{"romeo", "romeo2", false},
		{"anna", "hanna", false},
		{"李雷", "韩梅梅", false},
		{"juliet", "julia", false},
	} {
		if alike := Skeleton(row.a) == Skeleton(row.b); alike != row.alike {
			t.Errorf("%s and %s: alike %v (%q, %q)", row.a, row.b, alike, Skeleton(row.a), Skeleton(row.b))
		}
		if s := Skeleton(row.a); Skeleton(s) != s {
			t.Errorf("skeleton of %q is %q, and of that %q", row.a, s, Skeleton(s))
		}
	}
}

func TestReliability25LooksTaken(t *testing.T) {
	each(t, func(b *bench) {
		b.must(b.Create(b.ctx, jid.MustParse("paul@capulet.example"), "secret-123"))
		for name, want := range map[string]bool{"pau1": true, "раul": true, "paul": false, "saul": false} {
			taken, err := b.LooksTaken(b.ctx, jid.MustParse(name+"@capulet.example"))
			b.must(err)
			if taken != want {
				t.Errorf("%s: %v", name, taken)
			}
		}
		taken, err := b.LooksTaken(b.ctx, jid.MustParse("pau1@montague.example"))
		b.must(err)
		if taken {
			t.Error("another domain's names count")
		}
	})
}

func jidOf(name string) jid.JID { return jid.MustParse(name + "@capulet.example") }
