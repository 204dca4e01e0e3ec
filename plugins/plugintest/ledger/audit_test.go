package ledger_test

import "testing"

// The audit is only worth something if it can fail.
func TestAudit(t *testing.T) {
	type kept struct{ sender, recipient, device []sighting }
	one, two := sighting{"a-b-1", "x"}, sighting{"a-b-2", "y"}
	both := []sighting{one, two}
	for name, c := range map[string]struct {
		kept
		refuse                       bool // the second message
		lost, reordered, wrong, dups int
	}{
		"well":                        {kept: kept{both, both, both}},
		"again":                       {kept: kept{both, both, []sighting{one, one, two}}, dups: 1},
		"again, another stanza-id":    {kept: kept{both, both, []sighting{one, {"a-b-1", "z"}, two}}, dups: 1, wrong: 1},
		"twice in the archive":        {kept: kept{both, []sighting{one, two, {"a-b-2", "z"}}, both}, dups: 1, wrong: 2},
		"not received":                {kept: kept{both, both, []sighting{one}}, lost: 1},
		"not in the sender's archive": {kept: kept{[]sighting{two}, both, both}, lost: 1},
		"not in the recipient's":      {kept: kept{both, []sighting{two}, both}, lost: 1},
		"archive in another order":    {kept: kept{both, []sighting{two, one}, both}, reordered: 1},
		"arrived in another order":    {kept: kept{both, both, []sighting{two, one}}, reordered: 1},
		"refused":                     {kept: kept{[]sighting{one}, []sighting{one}, []sighting{one}}, refuse: true},
		"of nobody":                   {kept: kept{both, both, []sighting{one, two, {"c-d-1", "q"}}}, wrong: 1},
		"of somebody else":            {kept: kept{both, both, []sighting{one, two, {"a-c-1", "q"}}}, wrong: 1},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBook()
			for range 2 {
				b.acked(b.send(pair{"a", "b"}))
			}
			b.send(pair{"a", "c"}) // never acknowledged: nobody misses it
			if c.refuse {
				b.refused("a-b-2", "wait", "resource-constraint")
			}
			for _, s := range c.sender {
				b.archived("a", s)
			}
			for _, s := range c.recipient {
				b.archived("b", s)
			}
			for _, s := range c.device {
				b.received("b", "b/1", s)
			}
			v := b.audit(map[string][]string{"a": nil, "b": {"b/1"}, "c": nil})
			if len(v.lost) != c.lost || len(v.reordered) != c.reordered || len(v.wrong) != c.wrong || v.duplicates != c.dups {
				t.Errorf("%+v", v)
			}
		})
	}
}

// What was refused without its sender's knowledge may come later, but not never.
func TestAuditOfLostRefusals(t *testing.T) {
	for name, last := range map[string]int{"later": 0, "never": 1} {
		t.Run(name, func(t *testing.T) {
			b := newBook()
			for range 2 {
				b.acked(b.send(pair{"a", "b"}))
			}
			b.refusedOnce("a-b-1")
			seen := []sighting{{"a-b-2", "x"}, {"a-b-1", "y"}}[:2-last]
			for _, s := range seen {
				b.archived("a", s)
				b.archived("b", s)
				b.received("b", "b/1", s)
			}
			if v := b.audit(map[string][]string{"b": {"b/1"}}); len(v.reordered) != 0 || len(v.lost) != last {
				t.Errorf("%+v", v)
			}
		})
	}
}

// A late repeat is one only if it was sent again and another device had it.
func TestAuditOfLateRepeats(t *testing.T) {
	for name, c := range map[string]struct {
		again, other    bool
		late, reordered int
	}{
		"sent again, another had it": {true, true, 1, 0},
		"sent once":                  {false, true, 0, 1},
		"nobody had it":              {true, false, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBook()
			b.send(pair{"a", "b"})
			b.send(pair{"a", "b"})
			if c.again {
				b.sentAgain("a-b-1")
			}
			b.received("b", "b/1", sighting{"a-b-2", "y"})
			b.received("b", "b/1", sighting{"a-b-1", "x"})
			if c.other {
				b.received("b", "b/2", sighting{"a-b-1", "x"})
			}
			v := b.audit(map[string][]string{"b": {"b/1", "b/2"}})
			if v.late != c.late || len(v.reordered) != c.reordered {
				t.Errorf("%+v", v)
			}
		})
	}
}

func TestAuditWantsClearErrors(t *testing.T) {
	b := newBook()
	b.refused(b.send(pair{"a", "b"}), "cancel", "internal-server-error")
	if v := b.audit(nil); len(v.wrong) != 1 {
		t.Errorf("%+v", v)
	}
}

// Who is in a room hears what the archive has, in its order, from its entry on.
func TestAuditOfRooms(t *testing.T) {
	all := []sighting{{"a-hall-1", "u"}, {"a-hall-2", "v"}, {"a-hall-3", "w"}, {"a-hall-4", "x"}}
	for name, c := range map[string]struct {
		stays                           []seat
		missed, astray, repeated, wrong int
	}{
		"well":               {stays: []seat{all}},
		"came later":         {stays: []seat{all[2:]}},
		"came again":         {stays: []seat{all[:1], all[3:]}},
		"missed":             {stays: []seat{{all[0], all[2], all[3]}}, missed: 1},
		"in another order":   {stays: []seat{{all[1], all[0], all[2], all[3]}}, astray: 1},
		"repeated":           {stays: []seat{{all[0], all[1], all[0], all[1], all[2], all[3]}}, repeated: 2},
		"not in the archive": {stays: []seat{{all[0], {"a-hall-5", "y"}, all[1]}}, wrong: 1},
		"another stanza-id":  {stays: []seat{{all[0], {"a-hall-2", "z"}, all[2]}}, wrong: 1},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBook()
			for range 5 {
				b.acked(b.send(pair{"a", hall}))
			}
			for _, s := range all {
				b.archived(hall, s)
			}
			for _, stay := range c.stays {
				b.mu.Lock()
				b.sat("b/1")
				b.mu.Unlock()
				for _, s := range stay {
					b.received("b", "b/1", s)
				}
			}
			var v verdict
			b.order(&v)
			if len(v.missed) != c.missed || len(v.astray) != c.astray || v.repeated != c.repeated || len(v.wrong) != c.wrong {
				t.Errorf("%+v", v)
			}
		})
	}
}
