package muc

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
)

// leave is unavailable presence (XEP-0045 §7.14). Of who is not in the room it says
// nothing (§17.3). Nobody waits for it: it may come from what the room itself has
// sent. bound is when the session was bound that leaves (processor.Owned).
func (r *room) leave(ctx context.Context, st *stanza.Stanza, bound time.Time) error {
	again := leaving(st, r.s.env.Clock.Now(), bound)
	return r.do(ctx, false, func(o *op) error {
		o.redo = &again
		x := r.sessions[st.From]
		if x == nil || st.To.IsFull() && st.To.Resource() != x.nick || x.follows(bound) {
			return nil
		}
		r.out(o, x, st, told{})
		return nil
	})
}

// follows reports whether the seat has been taken by a later session of the same
// address than the one that was bound then. Of people elsewhere that is not known.
func (x *session) follows(bound time.Time) bool {
	return !bound.IsZero() && x.bound.After(bound)
}

// leaving is what is still to be done of a leave that could not be written down.
func leaving(st *stanza.Stanza, then, bound time.Time) errand {
	text := fmt.Sprintf("%d %s\n%s", then.UnixMicro(), st.From, st.To.Resource())
	if !bound.IsZero() {
		text += fmt.Sprintf("\n%d", bound.UnixMicro())
	}
	return errand{"left", text}
}

// left is leave for a session that had left then: it may have entered anew since.
func (r *room) left(ctx context.Context, arg string) error {
	when, who, _ := strings.Cut(arg, " ")
	from, rest, _ := strings.Cut(who, "\n")
	nick, since, _ := strings.Cut(rest, "\n")
	then, err := strconv.ParseInt(when, 10, 64)
	if err != nil {
		return fmt.Errorf("left %q: %w", arg, err)
	}
	var bound time.Time
	if n, err := strconv.ParseInt(since, 10, 64); err == nil {
		bound = time.UnixMicro(n)
	}
	at, err := jid.Parse(from)
	if err != nil {
		return fmt.Errorf("left %q: %w", arg, err)
	}
	return r.do(ctx, false, func(o *op) error {
		o.redo = &errand{"left", arg}
		if x := r.sessions[at]; x != nil && x.since < then && !x.follows(bound) && (nick == "" || nick == x.nick) {
			r.out(o, x, nil, told{})
		}
		return nil
	})
}

// out takes a session out of the room, for whatever reason t gives. said is the
// presence it leaves with; nil: none.
func (r *room) out(o *op, x *session, said *stanza.Stanza, t told) {
	was := x.occupant.face() == x
	r.goodbye(o, x, said, t)
	last := r.remove(x)
	if t.lost {
		o.rows.Add(&lostOccupant, r.jid.String(), x.jid.String(), r.s.env.Clock.Now().UnixMicro())
	} else {
		o.rows.Add(&dropOccupant, r.jid.String(), x.jid.String())
	}
	if !last {
		if was { // the others see what is left of it
			r.show(o, x.occupant.face(), told{})
		}
		return
	}
	if r.state == locked || r.emptied() {
		r.destroy(o, destruction{})
	}
}

// outAll takes an occupant out with all its sessions.
func (r *room) outAll(o *op, who *occupant, t told) {
	for len(who.sessions) > 0 && r.nicks[who.nick] == who {
		r.out(o, who.sessions[0], nil, t)
	}
}

// emptied reports whether the room is temporary and has been left by everybody
// (XEP-0045 §7.14).
func (r *room) emptied() bool {
	return r.state != vacant && !r.cfg.Persistent && len(r.sessions) == 0
}

// goodbye sends a session's farewell: to itself, and when it is the occupant's last
// one to the others.
func (r *room) goodbye(o *op, x *session, said *stanza.Stanza, t told) {
	self := t
	self.statuses = append([]string{statusSelf}, t.statuses...)
	o.out = append(o.out, delivery{st: r.farewell(x, said, x.jid, self), to: []jid.JID{x.jid}, sure: true, link: r.over()})
	if len(x.sessions) > 1 {
		return
	}
	knowing, others := r.split(x.occupant)
	if len(knowing) > 0 {
		o.send(r.farewell(x, said, x.jid, t), knowing...)
	}
	if len(others) > 0 {
		o.send(r.farewell(x, said, jid.JID{}, t), others...)
	}
}

// ghostly are the errors that say that somebody is not there any more (rule 67,
// XEP-0045 §18.1.2).
var ghostly = map[stanza.Condition]bool{
	stanza.Gone: true, stanza.ItemNotFound: true, stanza.RecipientUnavailable: true,
	stanza.Redirect: true, stanza.RemoteServerNotFound: true, stanza.RemoteServerTimeout: true,
}

// bounced takes an error that has come back from an occupant, and reports whether it
// says that it is gone. A session of ours that is not there may be about to come
// back: it keeps its place for a while.
func (r *room) bounced(ctx context.Context, st *stanza.Stanza) (ghost bool) {
	e := st.Err()
	here := r.s.env.Local(st.From.Domain())
	_, bound := r.s.env.Sessions.Find(st.From)
	switch {
	case e == nil, here && bound:
		return false
	case here:
		_ = r.do(ctx, false, func(*op) error { // it only marks
			if x := r.sessions[st.From]; x != nil && x.absent.IsZero() {
				x.absent = r.s.env.Clock.Now()
			}
			return nil
		})
		return true
	case !ghostly[e.Condition]:
		return false
	}
	_ = r.do(ctx, false, func(o *op) error {
		for at, x := range r.sessions {
			if at == st.From || st.From.IsBare() && x.bare == st.From {
				r.s.m.ghosts.Inc()
				r.out(o, x, nil, told{statuses: []string{statusKicked, statusTechnicalProblems}})
			}
		}
		return nil
	})
	return true
}
