package muc

import (
	"context"
	"fmt"
	"strings"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins/archive"
	"parley/router/channel"
	"parley/router/sessions"
)

// How every session of ours in a room gets every message, once and in the archive's
// order (D2, D3), whatever is lost on the way: a node that does not hear the owner, a
// message that is committed by an owner that dies before it tells anybody, a database
// that cannot say whether it has committed. What lasts is a chain (channel.Link), which
// begins for a session with its entry. A session that has missed something says so to
// its node (noted), which tells the room's owner, and the owner sends what follows out
// of the archive. Whoever cannot notice that something is missing, because nothing has
// come since, learns how far the room has come from its owner: soon after something was
// said, when the room has a new owner, and when nodes may not have heard each other
// (mark).

// missedPage is how many messages a session that has missed some is told at a time. It
// asks for the next ones when it has them.
const missedPage = 250

// joint gives what has a place in the room its link; the leader's.
func (r *room) joint(o *op) {
	if o.post == nil || !o.post.Lasting || !r.s.kept.KeepsRooms() {
		return
	}
	l := &channel.Link{Chain: r.jid, After: r.reached, At: o.post.ID}
	r.reached = o.post.ID
	r.unmarked.Store(true)
	for i := range o.out {
		if o.out[i].st == o.post.Stanza {
			o.out[i].link = l
		}
	}
}

// start is the link that a session begins with: what comes behind its entry it is to
// get. nil: nothing is kept that it could be given later.
func (r *room) start(x *session) *channel.Link {
	if !r.s.kept.KeepsRooms() {
		return nil
	}
	return &channel.Link{Chain: r.jid, At: x.since, Start: true}
}

// over is the link of what a session leaves with.
func (r *room) over() *channel.Link { return &channel.Link{Chain: r.jid, End: true} }

// mark lets everybody's session know how far the room has come.
func (r *room) mark(ctx context.Context) error {
	r.unmarked.Store(false)
	return r.do(ctx, false, func(o *op) error {
		if len(r.sessions) > 0 {
			r.markTo(o, r.everybody().all...)
		}
		return nil
	})
}

// markIfDue is mark when somebody may not know it.
func (r *room) markIfDue(ctx context.Context) {
	if !r.unmarked.Load() {
		return
	}
	if err := r.mark(ctx); err != nil && ctx.Err() == nil { // one that is read again says it then
		r.unmarked.Store(true)
	}
}

func (r *room) markTo(o *op, to ...jid.JID) {
	at := r.kept.Next() // strangers' seats are older
	o.out = append(o.out, delivery{later: func() []delivery {
		if !r.s.kept.KeepsRooms() {
			return nil
		}
		return []delivery{{to: to, link: &channel.Link{Chain: r.jid, After: r.reached, At: at, Check: true}}}
	}})
}

// noted is what a session here says of a room.
func (s *service) noted(_ context.Context, ref sessions.Ref, note []byte) {
	g, err := channel.DecodeGap(note)
	if err != nil {
		s.env.Log.Error("what a session has missed is not understood", "jid", ref.JID.String(), "err", err)
		return
	}
	what := "behind"
	if g.Stranger {
		what = "stranger"
	}
	s.chores.add(g.Chain, errand{what, fmt.Sprintf("%d %d %d %s", g.After, g.Since, g.At, ref.JID)})
}

// missing is what noted tells of.
func missing(arg string) (g channel.Gap, at jid.JID, err error) {
	var rest string
	if _, err = fmt.Sscanf(arg, "%d %d %d", &g.After, &g.Since, &g.At); err == nil {
		rest = strings.SplitN(arg, " ", 4)[3] // a resource may have spaces
		at, err = jid.Parse(rest)
	}
	if err != nil {
		return g, at, fmt.Errorf("gap %q: %w", arg, err)
	}
	return g, at, nil
}

// behind sends a session what it has missed.
func (r *room) behind(ctx context.Context, arg string) error {
	g, at, err := missing(arg)
	if err != nil {
		return err
	}
	return r.do(ctx, false, func(o *op) error {
		o.redo = &errand{"behind", arg}
		x := r.sessions[at]
		if x == nil {
			r.outside(o, at)
			return nil
		}
		m := missed{r, r.kept, x.jid, g.After, g.After == 0}
		if m.whole {
			m.after = max(x.since, g.Since)
		}
		o.out = append(o.out, delivery{later: m.page})
		return nil
	})
}

// outside tells a session that it is not in the room, though it thinks so (XEP-0045
// §7.2.18): nobody knows any more what its nickname was.
func (r *room) outside(o *op, at jid.JID) {
	o.rows.Add(&dropOccupant, r.jid.String(), at.String()) // what is left of it
	item := stanza.El(NSUser, "item").With("affiliation", max(r.affiliationOf(at.Bare()), IsNone).String()).With("role", NoRole.String())
	x := statuses(stanza.El(NSUser, "x").Add(item), statusSelf, statusKicked, statusTechnicalProblems)
	bye := stanza.Make(stanza.Presence, stanza.TypeUnavailable, r.jid, jid.JID{}, "", x)
	o.out = append(o.out, delivery{st: bye, to: []jid.JID{at}, sure: true, link: r.over()})
}

// missed is what a session is to be told.
type missed struct {
	r     *room
	kept  *archive.Room
	to    jid.JID
	after int64 // it has everything up to here
	whole bool  // nobody knows what it has: it begins anew
}

// page is the next part of it.
func (m missed) page() []delivery {
	ctx, cancel := context.WithTimeout(context.Background(), settleLimit)
	defer cancel()
	some, last, all, err := m.kept.After(ctx, m.after, missedPage)
	if err != nil {
		m.r.s.env.Log.Warn("a session is told later what it has missed", "room", m.r.jid.String(), "jid", m.to.String(), "err", err)
		m.r.unmarked.Store(true)
		return nil
	}
	out := make([]delivery, 0, len(some)+1)
	for _, said := range some {
		st := must(copied(said.Stanza, said.Stanza.From, stanza.TypeGroupchat, saysWho, m.r.delay(said.At)))
		out = append(out, delivery{st: st, to: []jid.JID{m.to}, asked: true, link: m.link(m.after, said.ID)})
		m.after = said.ID
	}
	if all {
		last = max(last, m.r.reached)
	}
	if last > m.after || m.whole { // the rest was taken back
		out = append(out, delivery{to: []jid.JID{m.to}, link: m.link(m.after, max(last, m.after))})
	}
	if !all { // it asks for the next part
		out = append(out, delivery{to: []jid.JID{m.to}, link: &channel.Link{Chain: m.r.jid, After: last + 1, At: last + 1, Check: true}})
	}
	return out
}

func (m *missed) link(after, at int64) *channel.Link {
	l := &channel.Link{Chain: m.r.jid, After: after, At: at, Start: m.whole}
	m.whole = false
	return l
}

// stranger takes out a session whose client does not know of the room: an earlier one
// with the address has entered it.
func (r *room) stranger(ctx context.Context, arg string) error {
	g, at, err := missing(arg)
	if err != nil {
		return err
	}
	return r.do(ctx, false, func(o *op) error {
		o.redo = &errand{"stranger", arg}
		if x := r.sessions[at]; x != nil && x.since < g.At { // else it has entered meanwhile
			r.s.m.ghosts.Inc()
			r.out(o, x, nil, told{statuses: []string{statusKicked, statusTechnicalProblems}})
		}
		return nil
	})
}

// back is for a session that goes on after its node has died, or been restarted: it
// learns who is there, and how far the room has come.
func (r *room) back(ctx context.Context, session string) error {
	at, err := jid.Parse(session)
	if err != nil {
		return fmt.Errorf("session %q: %w", session, err)
	}
	return r.do(ctx, false, func(o *op) error {
		o.redo = &errand{"back", session}
		x := r.sessions[at]
		if x == nil {
			r.outside(o, at)
			return nil
		}
		x.absent = time.Time{}
		r.roster(o, x, told{})
		r.markTo(o, x.jid)
		return nil
	})
}
