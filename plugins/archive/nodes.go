package archive

import (
	"context"
	"slices"

	"parley/parser/jid"
	"parley/router/sessions"
)

// missed looks again for what waits for sessions of this node: of the account,
// or with an empty key of all. While nodes did not hear each other one of them
// may have stored what another one would have delivered. When it returns, nothing
// that is newer gets to those sessions before that.
func (a *Archive) missed(key string) {
	var refs []sessions.Ref
	see := func(e *sessions.Entry) bool {
		if e.Node == a.env.Node && e.Kind == sessions.Client && e.Receives() {
			refs = append(refs, e.Ref)
		}
		return true
	}
	if account, err := jid.Parse(key); err == nil {
		for _, e := range a.env.Sessions.Account(account) {
			see(e)
		}
	} else {
		a.env.Sessions.Each(see)
	}
	if len(refs) == 0 {
		return
	}
	a.will.withHeir(func(p *part) {
		refs = slices.DeleteFunc(refs, func(ref sessions.Ref) bool { return !p.replays.stay(ref) })
		if len(refs) == 0 {
			return
		}
		p.tasks.Go(func() {
			for _, ref := range refs {
				p.replays.again(ref)
			}
		})
	})
}

// stay keeps newer messages from a session that is live already; again has to
// follow. It reports false when there is no need: it is gone, or a replay is at
// work, which looks once more.
func (r *replays) stay(ref sessions.Ref) bool {
	if r.part.env.Sessions.Miss(ref) {
		return false
	}
	// Other nodes' rows may be older than what this session has had its last of.
	r.mu.Lock()
	if at, had := r.left[ref]; had {
		r.left[ref] = min(at, idAt(r.part.env.Clock.Now().Add(-commitLimit)))
	}
	r.mu.Unlock()
	now, ok := r.part.reg.Change(ref, func(st *sessions.State) { st.Replaying = st.Available && st.Priority >= 0 })
	return ok && now.Replaying
}

// again replays to a session that stays, as soon as there is a place to read.
// What its client does not take at once holds up nobody else.
func (r *replays) again(ref sessions.Ref) {
	at := r.place()
	at.take()
	r.part.tasks.Go(func() {
		defer at.leave() // it may have had nothing to read
		r.begin(context.Background(), ref, false, at)
	})
}
