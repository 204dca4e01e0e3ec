package invitations

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/storage"
	"parley/storage/storagetest"
)

type clock struct {
	plugins.SystemClock
	now time.Time
}

func (c *clock) Now() time.Time { return c.now }

// Tokens are good once, until their time is over, however many try; the database does
// not have them.
func TestTokens(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		c := &clock{now: time.Unix(1e9, 0)}
		k := newTokens(plugins.Env{DB: db, Clock: c})
		if err := db.Migrate(t.Context(), Name, migrations); err != nil {
			t.Fatal(err)
		}
		romeo, juliet := jid.MustParse("romeo@montague.example"), jid.MustParse("juliet@montague.example")
		issue := func(i Invitation, most int) (string, error) {
			i.Expires = c.now.Add(time.Hour)
			return k.issue(t.Context(), i, most)
		}
		token, err := issue(Invitation{Inviter: romeo, Account: juliet, Opens: true}, 1)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := issue(Invitation{Inviter: romeo, Account: romeo.Host()}, 1); !errors.Is(err, ErrMany) {
			t.Errorf("one too many: %v", err)
		}
		one, err := k.Look(t.Context(), token)
		if err != nil || one.Inviter != romeo || one.Account != juliet || !one.Opens || one.ID == token {
			t.Errorf("%+v, %v", one, err)
		}
		if taken, err := k.Reserved(t.Context(), juliet, ""); !taken || err != nil {
			t.Errorf("reserved: %v, %v", taken, err)
		}
		var won atomic.Int32
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				if k.Claim(t.Context(), one.ID) == nil {
					won.Add(1)
				}
			})
		}
		all.Wait()
		if won.Load() != 1 {
			t.Errorf("used %d times", won.Load())
		}
		if _, err := k.Look(t.Context(), token); !errors.Is(err, ErrUnknown) {
			t.Errorf("used up: %v", err)
		}
		if err := k.Release(t.Context(), one.ID); err != nil {
			t.Fatal(err)
		}
		c.now = c.now.Add(2 * time.Hour)
		if _, err := k.Look(t.Context(), token); !errors.Is(err, ErrUnknown) {
			t.Errorf("too old: %v", err)
		}
		if taken, err := k.Reserved(t.Context(), juliet, ""); taken || err != nil {
			t.Errorf("reserved for ever: %v, %v", taken, err)
		}
	})
}

// An invitation's token has 128 bits of chance at least, and the database does not
// have it.
func TestSecurityInvitationTokens(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		c := &clock{now: time.Unix(1e9, 0)}
		k := newTokens(plugins.Env{DB: db, Clock: c})
		if err := db.Migrate(t.Context(), Name, migrations); err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		for range 50 {
			token, err := k.issue(t.Context(), Invitation{Account: jid.MustParse("a.example"), Expires: c.now.Add(time.Hour)}, -1)
			if err != nil {
				t.Fatal(err)
			}
			if len(token)*5 < 128 || seen[token] { // five bits a letter (crypto/rand.Text)
				t.Errorf("%q is short, or comes twice", token)
			}
			seen[token] = true
			var n int
			if err := db.QueryRow(t.Context(), "SELECT count(*) FROM invitation WHERE id = $1", token).Scan(&n); err != nil || n != 0 {
				t.Errorf("the token is stored: %d, %v", n, err)
			}
			if _, err := k.Look(t.Context(), token); err != nil {
				t.Errorf("the token is not good: %v", err)
			}
		}
	})
}

func TestURI(t *testing.T) {
	romeo, juliet, domain := jid.MustParse("romeo@a.example"), jid.MustParse("jul?iet@a.example"), jid.MustParse("a.example")
	for want, i := range map[string]Invitation{
		"xmpp:a.example?register;preauth=T":           {Account: domain, Opens: true},
		"xmpp:jul%3Fiet@a.example?register;preauth=T": {Account: juliet, Inviter: romeo, Opens: true},
		"xmpp:romeo@a.example?roster;preauth=T":       {Account: domain, Inviter: romeo},
		"xmpp:romeo@a.example?roster;preauth=T;ibr=y": {Account: domain, Inviter: romeo, Opens: true},
	} {
		if got := i.URI("T"); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
