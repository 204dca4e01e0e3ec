package archive

import (
	"context"
	"fmt"
	"slices"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/processor"
	"parley/storage"
)

// Mode is what becomes of a message whose contact stands in neither list
// (XEP-0441 §2.3).
type Mode string

// The modes.
const (
	Always Mode = "always"
	Never  Mode = "never"
	Roster Mode = "roster" // only of contacts in the roster
)

// maxRules bounds both lists together.
const maxRules = 1000

// Preferences are an account's wishes. Immutable.
type Preferences struct {
	Mode   Mode
	Always []jid.JID // in the client's order
	Never  []jid.JID
	rules  map[jid.JID]bool
}

func loadPreferences(ctx context.Context, db storage.Querier, owner int64, mode Mode) (*Preferences, error) {
	p := &Preferences{Mode: mode, rules: map[jid.JID]bool{}}
	rows, err := db.Query(ctx, `SELECT jid, keep FROM archive_rule WHERE owner = $1 ORDER BY jid`, owner)
	if err != nil {
		return nil, fmt.Errorf("archive preferences: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var s string
		var keep bool
		if err := rows.Scan(&s, &keep); err != nil {
			return nil, fmt.Errorf("archive preferences: %w", err)
		}
		at, err := jid.Parse(s)
		if err != nil {
			return nil, fmt.Errorf("archive preferences: %w", err)
		}
		p.add(at, keep)
	}
	return p, rows.Err()
}

func (p *Preferences) add(at jid.JID, keep bool) {
	if _, twice := p.rules[at]; twice {
		return
	}
	p.rules[at] = keep
	if keep {
		p.Always = append(p.Always, at)
	} else {
		p.Never = append(p.Never, at)
	}
}

// keeps reports whether messages to or from the contact are archived (XEP-0441
// §2.4). known is asked for the mode roster only.
func (p *Preferences) keeps(contact jid.JID, known func(bare jid.JID) (bool, error)) (bool, error) {
	if len(p.rules) > 0 {
		if keep, ok := p.rules[contact]; ok {
			return keep, nil
		}
		if keep, ok := p.rules[contact.Bare()]; ok {
			return keep, nil
		}
	}
	switch p.Mode {
	case Never:
		return false, nil
	case Roster:
		return known(contact.Bare())
	}
	return true, nil
}

// element is <prefs/>, both lists present even when empty (§2.1).
func (p *Preferences) element() *stanza.Element {
	return stanza.El(NS, "prefs").With("default", string(p.Mode)).
		Add(list("always", p.Always), list("never", p.Never))
}

func list(name string, all []jid.JID) *stanza.Element {
	el := stanza.El(NS, name)
	for _, at := range all {
		el.Add(stanza.El(NS, "jid").AddText(at.String()))
	}
	return el
}

// parsePreferences reads what a client wants. A missing list is an empty one.
func parsePreferences(el *stanza.Element) (*Preferences, error) {
	p := &Preferences{Mode: Mode(el.Get("default")), rules: map[jid.JID]bool{}}
	if !slices.Contains([]Mode{Always, Never, Roster}, p.Mode) {
		return nil, stanza.NewError(stanza.BadRequest, "default is one of always, never, roster")
	}
	for name, keep := range map[string]bool{"always": true, "never": false} {
		l := el.Child(NS, name)
		if l == nil {
			continue
		}
		for j := range l.Elements() {
			if j.Name != (stanza.Name{Space: NS, Local: "jid"}) {
				continue
			}
			at, err := jid.Parse(j.Text())
			if err != nil {
				return nil, stanza.NewError(stanza.JIDMalformed, "")
			}
			if was, twice := p.rules[at]; twice && was != keep {
				return nil, stanza.NewError(stanza.BadRequest, "an address is in both lists")
			}
			p.add(at, keep)
		}
	}
	if len(p.rules) > maxRules {
		return nil, stanza.NewError(stanza.PolicyViolation, "too many addresses")
	}
	return p, nil
}

// prefs answers XEP-0441 §2.1 and §2.2.
func (p *part) prefs(ctx context.Context, q *processor.IQ) (*stanza.Element, error) {
	if !q.Own() {
		return nil, stanza.NewError(stanza.Forbidden, "")
	}
	o, err := p.owners.get(ctx, q.Owner)
	if err != nil {
		return nil, err
	}
	if !q.Set() {
		return o.prefs.element(), nil
	}
	fresh, err := parsePreferences(q.Query)
	if err != nil {
		return nil, err
	}
	if err := savePreferences(ctx, p.env.DB, o.id, fresh); err != nil {
		return nil, err
	}
	p.changed(ctx, q.Owner)
	return fresh.element(), nil
}

func savePreferences(ctx context.Context, db storage.DB, owner int64, p *Preferences) error {
	err := db.Tx(ctx, func(tx storage.Tx) error {
		if _, err := tx.Exec(ctx, `UPDATE archive_owner SET mode = $2 WHERE id = $1`, owner, string(p.Mode)); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM archive_rule WHERE owner = $1`, owner); err != nil {
			return err
		}
		for at, keep := range p.rules {
			if _, err := tx.Exec(ctx, `INSERT INTO archive_rule (owner, jid, keep) VALUES ($1, $2, $3)`, owner, at.String(), keep); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("archive preferences: %w", err)
	}
	return nil
}
