package muc

import (
	"maps"
	"strconv"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/plugins/disco"
)

// maxSlow is the longest pause between two messages, in seconds: a day.
const maxSlow = 24 * 60 * 60

// pace is who, by bare address, has spoken when in a room with slow mode (XEP-0500 §6):
// whatever its nicknames and sessions are, and whether it has left meanwhile. It is
// not stored: a room that is read again begins anew.
type pace struct{ spoke map[jid.JID]time.Time }

// maxPaced is how many a room remembers; beyond it, those who have waited for longest
// may speak early.
const maxPaced = 10_000

// slowly is XEP-0500 §6: who is no admin waits between two messages with a body.
func slowly(r *room, p *posting) error {
	pause := time.Duration(r.cfg.SlowMode) * time.Second
	if pause == 0 || p.subject || !p.st.Has(stanza.NSClient, "body") || r.affiliationOf(p.x.bare) >= IsAdmin {
		return nil
	}
	now := r.s.env.Clock.Now()
	if at, ok := r.pace.spoke[p.x.bare]; ok && now.Sub(at) < pause {
		r.s.m.refused.WithLabelValues("slow-mode").Inc()
		return &stanza.Error{Type: stanza.Wait, Condition: stanza.PolicyViolation,
			Text: "this room is in slow mode: wait " + strconv.Itoa(r.cfg.SlowMode) + " seconds between messages"}
	}
	r.pace.note(p.x.bare, now, pause)
	return nil
}

func (p *pace) note(who jid.JID, now time.Time, pause time.Duration) {
	if p.spoke == nil {
		p.spoke = map[jid.JID]time.Time{}
	}
	if len(p.spoke) >= maxPaced {
		maps.DeleteFunc(p.spoke, func(_ jid.JID, at time.Time) bool { return now.Sub(at) >= pause })
	}
	if len(p.spoke) >= maxPaced {
		middle := now.Add(-pause / 2)
		maps.DeleteFunc(p.spoke, func(_ jid.JID, at time.Time) bool { return at.Before(middle) })
	}
	if len(p.spoke) >= maxPaced {
		clear(p.spoke)
	}
	p.spoke[who] = now
}

// slowField is in the form of configuration (XEP-0500 §5.1).
func slowField() form.Binding[roomForm] {
	b := form.Number("muc#roomconfig_slow_mode_duration", "Slow mode: seconds between two messages of one person; 0: none", 0, maxSlow,
		func(f *roomForm) *int { return &f.SlowMode })
	b.Range = &form.Range{Min: 0, Max: maxSlow}
	return b
}

// slowFact is in muc#roominfo (XEP-0500 §5.2).
func (r *room) slowFact() disco.Field {
	return disco.Field{Var: "muc#roominfo_slow_mode_duration", Type: form.TextSingle, Label: "Seconds between two messages of one person",
		Values: []string{strconv.Itoa(r.cfg.SlowMode)}}
}
