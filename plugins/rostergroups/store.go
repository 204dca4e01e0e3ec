package rostergroups

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"parley/parser/jid"
	"parley/plugins"
	"parley/storage"
)

// store is the tables.
type store struct{ env plugins.Env }

const (
	sqlVersion = `SELECT coalesce(max(version), 0) FROM roster_group_version`
	sqlChange  = `INSERT INTO roster_group_version (one, version) VALUES (1, 1) ON CONFLICT (one) DO UPDATE SET version = roster_group_version.version + 1`
	sqlGroups  = `SELECT domain, name, everyone, everybody FROM roster_group`
	sqlMembers = `SELECT domain, name, jid, display FROM roster_group_member`
	sqlAdd     = `INSERT INTO roster_group (domain, name, everyone, everybody) VALUES ($1, $2, $3, $4) ON CONFLICT (domain, name) DO NOTHING`
	sqlSet     = `UPDATE roster_group SET everybody = $3 WHERE domain = $1 AND name = $2`
	sqlDrop    = `DELETE FROM roster_group WHERE domain = $1 AND name = $2`
	sqlEmpty   = `DELETE FROM roster_group_member WHERE domain = $1 AND name = $2`
	sqlJoin    = `INSERT INTO roster_group_member (domain, name, jid, display)
		SELECT domain, name, CAST($3 AS text), CAST($4 AS text) FROM roster_group WHERE domain = $1 AND name = $2 AND NOT everyone
		ON CONFLICT (domain, name, jid) DO UPDATE SET display = excluded.display`
	sqlLeave = `DELETE FROM roster_group_member WHERE domain = $1 AND name = $2 AND jid = $3`
	sqlIn    = `SELECT count(*) FROM roster_group_member WHERE jid = $1`
	sqlOut   = `DELETE FROM roster_group_member WHERE jid = $1`
)

func (s store) version(ctx context.Context) (v int64, err error) {
	if err = s.env.DB.QueryRow(ctx, sqlVersion).Scan(&v); err != nil {
		return 0, fmt.Errorf("roster groups: %w", err)
	}
	return v, nil
}

// load reads the groups of the domains that are served. What changes meanwhile makes
// another version.
func (s store) load(ctx context.Context) (*directory, error) {
	d := &directory{people: map[string][]jid.JID{}}
	var err error
	if d.version, err = s.version(ctx); err != nil {
		return nil, err
	}
	all, err := storage.All(ctx, s.env.DB, func(r storage.Row) (*group, error) {
		g := &group{}
		return g, r.Scan(&g.domain, &g.name, &g.everyone, &g.everybody)
	}, sqlGroups)
	if err != nil {
		return nil, fmt.Errorf("roster groups: %w", err)
	}
	slices.SortFunc(all, func(a, b *group) int { // whatever order the database has
		return cmp.Or(strings.Compare(a.domain, b.domain), strings.Compare(a.name, b.name))
	})
	type key struct{ domain, name string }
	by := map[key]*group{}
	for _, g := range all {
		if !s.env.Local(g.domain) {
			continue
		}
		if !g.everyone {
			g.members = map[jid.JID]string{}
		}
		by[key{g.domain, g.name}] = g
		d.groups = append(d.groups, g)
	}
	_, err = storage.All(ctx, s.env.DB, func(r storage.Row) (struct{}, error) {
		var k key
		var address, display string
		if err := r.Scan(&k.domain, &k.name, &address, &display); err != nil {
			return struct{}{}, err
		}
		j, err := jid.Parse(address)
		if g := by[k]; err == nil && g != nil && !g.everyone && s.env.Local(j.Domain()) {
			g.members[j] = display
		}
		return struct{}{}, err
	}, sqlMembers)
	if err != nil {
		return nil, fmt.Errorf("members of roster groups: %w", err)
	}
	return d, nil
}

// change runs f in a transaction that makes another version. Changes happen one after
// the other, on whatever node.
func (s store) change(ctx context.Context, f func(storage.Tx) error) error {
	err := s.env.DB.Tx(ctx, func(tx storage.Tx) error {
		if _, err := tx.Exec(ctx, sqlChange); err != nil {
			return err
		}
		return f(tx)
	})
	if err != nil {
		return fmt.Errorf("roster groups: %w", err)
	}
	return nil
}

// isMember reports whether somebody is named as a member of any group.
func (s store) isMember(ctx context.Context, j jid.JID) (bool, error) {
	var n int64
	if err := s.env.DB.QueryRow(ctx, sqlIn, j.String()).Scan(&n); err != nil {
		return false, fmt.Errorf("roster groups: %w", err)
	}
	return n > 0, nil
}
