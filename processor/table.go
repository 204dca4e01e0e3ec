package processor

import (
	"slices"

	"parley/plugins"
)

// table is what the attached components have registered: immutable, replaced
// as a whole. A retired table is drained when nobody runs in it any more.
type table struct {
	iq       map[iqKey][]iqEntry
	hooks    map[any]any // *Hook[E] → []hooked[E]
	features []string    // of the server
	account  []string    // of each account
	keeper   Keeper      // nil: a restart ends every session
	parts    []*Registrar
	owned    []Owned

	outgoing, incoming []hooked[*Flow] // of hooks: every message passes them

	*plugins.Usage
}

type iqKey struct{ ns, local string }

type iqEntry struct {
	to Target
	h  IQHandler
}

func newTable(parts []*Registrar) *table {
	t := &table{parts: parts, iq: map[iqKey][]iqEntry{}, hooks: map[any]any{}, Usage: plugins.NewUsage()}
	for _, r := range parts {
		for _, add := range r.hooks {
			add(t)
		}
		for _, q := range r.iqs {
			t.iq[q.key] = append(t.iq[q.key], q.entry)
		}
		if r.keeper != nil {
			t.keeper = r.keeper
		}
		t.owned = append(t.owned, r.owned...)
		t.features = append(t.features, r.features...)
		t.account = append(t.account, r.accountFeatures...)
	}
	t.outgoing, t.incoming = hooksOf(t, Outgoing), hooksOf(t, Incoming)
	slices.Sort(t.features)
	slices.Sort(t.account)
	t.features = slices.Compact(t.features)
	t.account = slices.Compact(t.account)
	return t
}

// acquire returns the table in force and keeps it from being drained.
func (s *Server) acquire() *table {
	for {
		t := s.table.Load()
		t.Enter()
		if s.table.Load() == t {
			return t
		}
		t.Leave()
	}
}
