package archive

import (
	"context"

	"parley/parser/jid"
	"parley/router/sessions"
)

// missed looks again for what waits for sessions of this node: of the account,
// or with an empty key of all. While nodes did not hear each other one of them
// may have stored what another one would have delivered.
func (a *Archive) missed(key string) {
	var refs []sessions.Ref
	see := func(e *sessions.Entry) bool {
		if e.Node == a.env.Node && e.Kind == sessions.Client && e.Receives() && !e.Replaying {
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
		p.tasks.Go(func() {
			for _, ref := range refs {
				p.replays.again(ref)
			}
		})
	})
}

// again replays to a session that is live already.
func (r *replays) again(ref sessions.Ref) {
	if r.part.stopped.Load() {
		return
	}
	r.busy <- struct{}{}
	defer func() { <-r.busy }()
	// Other nodes' rows may be older than what this session has had its last of.
	r.mu.Lock()
	if at, had := r.left[ref]; had {
		r.left[ref] = min(at, idAt(r.part.env.Clock.Now().Add(-commitLimit)))
	}
	r.mu.Unlock()
	now, ok := r.part.reg.Change(ref, func(st *sessions.State) { st.Replaying = st.Available && st.Priority >= 0 })
	if ok && now.Replaying {
		r.begin(context.Background(), ref, false)
	}
}
