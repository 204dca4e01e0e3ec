package archive

import (
	"context"
	"fmt"
	"strings"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/storage"
)

// How long messages with one contact are kept, or one whole archive, a room's say:
// what a person or a feature wants beside the configuration's max_age, and never
// longer than that. XEP-0441 has no words for it, so it is an API alone.
//
// With a contact it is what the messages say that ends: an archive has no holes
// (XEP-0313 §3.2), so who wrote to whom, when and under which id stays as long as
// the archive has it.

// Age is how long messages with a contact are kept.
type Age struct {
	Contact jid.JID // bare; zero: of the whole archive
	Age     time.Duration
}

// agesOfOne bounds the contacts of one archive.
const agesOfOne = 1000

// SetAge lets an account's messages with a contact end after that time, or with
// the zero JID all that is in its archive; 0: takes it back. It is done with the
// next round of expiry_interval. Errors: *stanza.Error policy-violation for too many contacts.
func (a *Archive) SetAge(ctx context.Context, account jid.JID, age Age) error {
	o, err := a.owners.get(ctx, account.Bare())
	if err != nil {
		return err
	}
	return a.setAge(ctx, o, age)
}

// SetAge lets all that is in the room's archive end after that time; 0: takes it
// back.
func (r *Room) SetAge(ctx context.Context, age time.Duration) error {
	return r.a.setAge(ctx, r.owner, Age{Age: age})
}

// Ages are those of an account.
func (a *Archive) Ages(ctx context.Context, account jid.JID) ([]Age, error) {
	o, err := a.owners.find(ctx, account.Bare())
	if err != nil || o == nil {
		return nil, err
	}
	return storage.All(ctx, a.env.DB, func(s storage.Row) (x Age, err error) {
		var contact string
		var age int64
		if err := s.Scan(&contact, &age); err != nil {
			return x, err
		}
		x.Age = time.Duration(age) * time.Microsecond
		if contact != "" {
			x.Contact, err = jid.Parse(contact)
		}
		return x, err
	}, `SELECT contact, age FROM archive_age WHERE owner = $1 ORDER BY contact`, o.id)
}

func (a *Archive) setAge(ctx context.Context, o *owner, age Age) error {
	peer, contact := int64(0), ""
	if !age.Contact.IsZero() {
		with := contactParty(age.Contact.Bare())
		peer, contact = with.peer, with.bare
	}
	n, err := int64(1), error(nil)
	if age.Age <= 0 {
		_, err = a.env.DB.Exec(ctx, `DELETE FROM archive_age WHERE owner = $1 AND peer = $2`, o.id, peer)
	} else {
		n, err = a.env.DB.Exec(ctx, `INSERT INTO archive_age (owner, peer, contact, age) SELECT $1, $2, $3, $4 WHERE (SELECT COUNT(*) FROM archive_age WHERE owner = $1 AND peer <> $2) < $5 ON CONFLICT (owner, peer) DO UPDATE SET age = excluded.age`,
			o.id, peer, contact, age.Age.Microseconds(), agesOfOne)
	}
	if err != nil {
		return fmt.Errorf("archive age: %w", err)
	}
	if n == 0 {
		return stanza.NewError(stanza.PolicyViolation, "too many contacts have a time of their own")
	}
	return nil
}

// aged is an age with what it is for.
type aged struct {
	owner, peer, age, upTo int64
	jid                    string
}

const sqlAges = `SELECT x.owner, x.peer, x.age, x.upto, o.jid FROM archive_age x JOIN archive_owner o ON o.id = x.owner WHERE (x.owner, x.peer) > ($1, $2) ORDER BY x.owner, x.peer LIMIT $3`

// expireAges lets what is older than its age end.
func (p *part) expireAges(ctx context.Context) error {
	for last := (aged{}); ; {
		some, err := storage.All(ctx, p.env.DB, func(s storage.Row) (x aged, err error) {
			err = s.Scan(&x.owner, &x.peer, &x.age, &x.upTo, &x.jid)
			return x, err
		}, sqlAges, last.owner, last.peer, ownersStep)
		if err != nil {
			return fmt.Errorf("archive age: %w", err)
		}
		for _, x := range some {
			last = x
			if !p.env.Owns(x.jid) {
				continue
			}
			below := idAt(p.env.Clock.Now().Add(-time.Duration(x.age) * time.Microsecond))
			if x.peer == 0 {
				err = p.expireOne(ctx, x.owner, x.jid, below)
			} else {
				err = p.blank(ctx, x, below)
			}
			if err != nil {
				return err
			}
		}
		if len(some) < ownersStep {
			return nil
		}
	}
}

var setUpTo = storage.Stmt{Name: "archive.age.upto", SQL: `UPDATE archive_age SET upto = $3 WHERE owner = $1 AND peer = $2`, Idempotent: true}

// blank takes out what messages with a contact say, below an id.
func (p *part) blank(ctx context.Context, x aged, below int64) error {
	below, err := p.free(ctx, x.owner, below)
	if err != nil {
		return err
	}
	for x.upTo < below-1 && ctx.Err() == nil {
		some, err := p.storedAll(ctx, p.env.DB, x.owner, `SELECT id, peer, key_id, stanza FROM archive WHERE owner = $1 AND peer = $2 AND id > $3 AND id < $4 ORDER BY id LIMIT $5`,
			x.owner, x.peer, x.upTo, below, expireStep)
		if err != nil {
			return fmt.Errorf("archive age: %w", err)
		}
		end := below - 1
		var w storage.WriteSet
		for i, m := range some {
			if m.st != nil {
				p.bury(x.owner, &m, nil, w.Add)
			}
			if i == expireStep-1 || w.Len() >= expireWords {
				end = m.id
				break
			}
		}
		w.Add(&setUpTo, x.owner, x.peer, end)
		if err := p.env.DB.Commit(ctx, &w); err != nil {
			return fmt.Errorf("archive age: %w", err)
		}
		x.upTo = end
	}
	return ctx.Err()
}

// free is the id, or a lower one, below which nothing waits for its recipient.
func (a *Archive) free(ctx context.Context, owner, below int64) (int64, error) {
	var waiting *int64
	if err := a.env.DB.QueryRow(ctx, `SELECT MIN(id) FROM archive_pending WHERE owner = $1 AND stanza IS NULL`, owner).Scan(&waiting); err != nil {
		return 0, fmt.Errorf("archive expiry: %w", err)
	}
	if waiting == nil {
		return below, nil
	}
	return min(below, *waiting), nil
}

// maxAges are the configuration's max_age and max_ages.
type maxAges struct {
	all time.Duration
	of  map[string]time.Duration // by bare JID or domain, prepared
}

func newMaxAges(c *Config) (maxAges, error) {
	m := maxAges{c.MaxAge, map[string]time.Duration{}}
	for name, age := range c.MaxAges {
		at, err := jid.Parse(name)
		switch {
		case err != nil:
			return m, fmt.Errorf("max_ages: %q is no address: %w", name, err)
		case !at.IsBare() || age < 0:
			return m, fmt.Errorf("max_ages: %q is to be an account, a room or a domain, with a time that is not negative", name)
		}
		m.of[at.String()] = age
	}
	return m, nil
}

func (m maxAges) none() bool { return m.all <= 0 && len(m.of) == 0 }

// cutoff is the id below which an archive's rows go; 0: none do.
func (m maxAges) cutoff(name string, now time.Time) int64 {
	age, ok := m.of[name]
	if !ok {
		_, domain, _ := strings.Cut(name, "@")
		if age, ok = m.of[domain]; !ok {
			age = m.all
		}
	}
	if age <= 0 {
		return 0
	}
	return idAt(now.Add(-age))
}
