package sessions

import (
	"bytes"
	"cmp"
	"slices"

	"parley/parser/jid"
)

// Every node knows all sessions. The one that has a session's socket is the
// only one that writes its entry, and shows the others what it has of the
// account whenever that changes: the whole of it, so that what comes twice does
// no harm and what is behind is made up for by whatever comes next.

// mirror shows the others what this node has. The zero value is for a node that
// is alone.
type mirror struct {
	node string
	to   func(account jid.JID)
}

// show tells of the session's account, if the session is this node's.
func (m *mirror) show(ref Ref) {
	if m.to != nil && ref.Node == m.node {
		m.to(ref.JID.Bare())
	}
}

// Show lets the other nodes know what has become of a session.
func (r *Registry) Show(ref Ref) { r.mirror.show(ref) }

// Mirror lets show be called, with no lock held, after each change of an entry
// of the node's that others can see. It is for the time before the first Bind.
func (r *Registry) Mirror(node string, show func(account jid.JID)) {
	r.mirror = mirror{node: node, to: show}
}

// looks reports whether other nodes would see no difference: of a replay they
// know nothing.
func (s *State) looks(other *State) bool {
	a, b := *s, *other
	if !bytes.Equal(a.Presence, b.Presence) || !a.PresenceAt.Equal(b.PresenceAt) || !a.BoundAt.Equal(b.BoundAt) {
		return false
	}
	return a.Kind == b.Kind && a.Available == b.Available && a.Priority == b.Priority &&
		a.Interested == b.Interested && a.Carbons == b.Carbons && a.Blocking == b.Blocking &&
		a.CapsNode == b.CapsNode && a.CapsHash == b.CapsHash && a.Hibernated == b.Hibernated && a.Paused == b.Paused && a.Buried == b.Buried &&
		a.Device == b.Device && a.Remote == b.Remote && a.Secure == b.Secure && a.Transport == b.Transport
}

// Of returns the node's sessions of an account.
func (r *Registry) Of(node string, account jid.JID) (out []*Entry) {
	for _, e := range r.Account(account) {
		if e.Node == node {
			out = append(out, e)
		}
	}
	return out
}

// newer reports which of two sessions that were given one address by two nodes
// at the same time counts, the same everywhere.
func newer(a, b *Entry) bool { return byAge(a, b) < 0 }

// byAge puts the newest first. Times are compared as they travel.
func byAge(a, b *Entry) int {
	return cmp.Or(cmp.Compare(b.BoundAt.UnixMicro(), a.BoundAt.UnixMicro()), cmp.Compare(b.Node, a.Node), cmp.Compare(b.Conn, a.Conn))
}

// Of two sessions with one address the older one, when it is another node's, is
// hidden: whether it or the newer one ends first only their nodes know, and they
// do not show again what has not changed. It comes forth when its address is free
// and its node has not taken it back.

// elsewhere reports whether a session is another node's.
func (r *Registry) elsewhere(e *Entry) bool { return r.mirror.to != nil && e.Node != r.mirror.node }

// hide makes list what is hidden of an account; the shard's lock is held.
func (s *shard) hide(bare string, list []*Entry) {
	if len(list) == 0 {
		delete(s.hidden, bare)
		return
	}
	s.hidden[bare] = list
}

// set makes list an account's sessions, and those that are hidden and need not
// be any more, which are returned. The shard's lock is held; hidden may be changed.
func (s *shard) set(bare string, list, hidden []*Entry) (news []*Entry) {
	if len(hidden) > 0 {
		slices.SortFunc(hidden, byAge)
		hidden = slices.DeleteFunc(hidden, func(e *Entry) bool {
			free := withAddress(list, e.JID) == nil
			if free {
				list, news = append(list, e), append(news, e)
			}
			return free
		})
	}
	s.hide(bare, hidden)
	if len(list) == 0 {
		delete(s.accounts, bare)
	} else {
		s.accounts[bare] = list
	}
	return news
}

// tell is for sessions of other nodes that have become known; no lock is held.
func (r *Registry) tell(news []*Entry) {
	if len(news) == 0 {
		return
	}
	r.hooks.RLock()
	hooks := r.adopted
	r.hooks.RUnlock()
	for _, e := range news {
		for _, f := range hooks {
			f(e)
		}
	}
}

// Gone returns what is closed when the session is not known here any more.
func (r *Registry) Gone(ref Ref) <-chan struct{} {
	gone := make(chan struct{})
	bare := ref.JID.Bare().String()
	s := r.shard(bare)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.accounts[bare] {
		if e.Ref == ref {
			if s.gone == nil {
				s.gone = map[Ref][]chan struct{}{}
			}
			s.gone[ref] = append(s.gone[ref], gone)
			return gone
		}
	}
	close(gone)
	return gone
}

// left tells who waits for a session's end; the shard's lock is held.
func (s *shard) left(ref Ref) {
	for _, gone := range s.gone[ref] {
		close(gone)
	}
	delete(s.gone, ref)
}

// Adopted lets f be called, with no lock held, with every session of another
// node that becomes known from now on.
func (r *Registry) Adopted(f func(*Entry)) {
	r.hooks.Lock()
	defer r.hooks.Unlock()
	r.adopted = append(r.adopted[:len(r.adopted):len(r.adopted)], f)
}

// Adopt makes theirs what is known of another node's sessions of the account.
// Of two with one address (RFC 6120 §7.7.2.2) the newer one stays; the others
// that had to go are returned. Those of this node are kept until Unbind, which
// nobody else has seen coming.
func (r *Registry) Adopt(node string, account jid.JID, theirs []*Entry) (ousted []*Entry) {
	ousted, news := r.adopt(node, account.String(), theirs)
	r.tell(news)
	return ousted
}

func (r *Registry) adopt(node, bare string, theirs []*Entry) (ousted, news []*Entry) {
	s := r.shard(bare)
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.accounts[bare]
	list := make([]*Entry, 0, len(old)+len(theirs))
	var hidden []*Entry
	for _, e := range s.hidden[bare] {
		if e.Node != node {
			hidden = append(hidden, e)
		}
	}
	for _, e := range old {
		if e.Node == node {
			if now := withAddress(theirs, e.JID); now == nil || now.Ref != e.Ref {
				s.left(e.Ref)
			}
			continue
		}
		if rival := withAddress(theirs, e.JID); rival != nil && newer(rival, e) {
			ousted = append(ousted, e)
			if e.Node == r.mirror.node {
				s.oust(e)
			}
			s.left(e.Ref)
			if r.elsewhere(e) {
				hidden = append(hidden, e)
			}
			continue
		}
		list = append(list, e)
	}
	for _, e := range theirs {
		fresh := &Entry{Ref: e.Ref, State: e.State}
		fresh.Replaying = false // where its socket is they know
		if withAddress(list, e.JID) != nil {
			hidden = append(hidden, fresh)
			continue
		}
		list = append(list, fresh)
		if was := withAddress(old, e.JID); was == nil || was.Ref != e.Ref {
			news = append(news, fresh)
		}
	}
	news = append(news, s.set(bare, list, hidden)...)
	s.came(news...)
	return ousted, news
}

// oust keeps what Unbind returns of a session that has been replaced; the
// shard's lock is held.
func (s *shard) oust(e *Entry) {
	if s.ousted == nil {
		s.ousted = map[Ref]*Entry{}
	}
	s.ousted[e.Ref] = e
}

func withAddress(list []*Entry, at jid.JID) *Entry {
	for _, e := range list {
		if e.JID == at {
			return e
		}
	}
	return nil
}

// On returns all sessions of a node, hidden ones too.
func (r *Registry) On(node string) (out []*Entry) {
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.RLock()
		for _, of := range [...]map[string][]*Entry{s.accounts, s.hidden} {
			for _, list := range of {
				for _, e := range list {
					if e.Node == node {
						out = append(out, e)
					}
				}
			}
		}
		s.mu.RUnlock()
	}
	return out
}
