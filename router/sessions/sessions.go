// Package sessions knows who is bound where.
//
// A Registry holds one immutable Entry per bound stream: clients under their
// full JID, external components under their domain, streams of other servers under
// the domain with a name of their own as the resource. It is a node's replica of
// what the owners of the sockets have told: Bind, Change and Unbind envelopes
// feed it, and nobody writes an Entry of a socket that is not theirs (mirror.go).
// It is a hint for routing, never the truth about a message: what a stale entry
// loses is still pending in the archive.
package sessions

import (
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"parley/parser/jid"
)

// Ref names one bound stream: the node that owns the socket, the stream's
// number there, and the address it is bound to.
type Ref struct {
	Node string
	Conn uint64
	JID  jid.JID
}

// connBits is how much of a Conn counts streams; what is above tells whose
// sockets they are. Numbers begin at the clock, which takes 51 bits.
const connBits = 56

// Conn is the number of the nth stream of the process that has the slot among
// those of a cluster; negative: it is alone.
func Conn(slot int, n uint64) uint64 {
	return uint64(slot+1)<<connBits | n&(1<<connBits-1) //nolint:gosec // slots are few
}

// SlotOf returns the slot of the process that has the stream's socket.
func SlotOf(conn uint64) int { return int(conn>>connBits) - 1 } //nolint:gosec // 8 bits

// IsZero reports whether the Ref names no stream, as for stanzas that the
// server itself made.
func (r Ref) IsZero() bool { return r.Conn == 0 }

// Peer tells by the address what sits at the other end; 0: nothing does.
func (r Ref) Peer() Kind {
	switch {
	case r.JID.IsZero():
		return 0
	case r.JID.Local() != "":
		return Client
	case r.JID.IsDomain():
		return Component
	}
	return Server
}

// Kind tells what sits at the other end of a stream.
type Kind uint8

// The kinds of streams.
const (
	Client    Kind = iota + 1 // a user's client, bound to a full JID
	Component                 // an external component, bound to a domain (XEP-0114)
	Server                    // another server, bound to its domain with a resource that names the stream
)

// State is what the house knows of a session beyond its address. It is owned
// by the node with the socket and changed by Change envelopes only.
type State struct {
	Kind       Kind
	Available  bool      // has sent initial presence (RFC 6121 §4.2)
	Priority   int8      // of the last available presence; 0 when none was given
	Presence   []byte    // last available presence: a complete stanza without 'to'
	PresenceAt time.Time // when it came; the stamp of answers to probes
	Interested bool      // has fetched the roster (RFC 6121 §2.2)
	Carbons    bool      // XEP-0280 §4
	Blocking   bool      // has fetched the block list (XEP-0191 §3.2)
	CapsNode   string    // XEP-0115 §4: the node#ver that the last presence announced
	CapsHash   string    // and the algorithm of its hash
	Hibernated bool      // the socket is gone, the session may still be resumed (XEP-0198 §5)
	Paused     bool      // the process ends before the session does (Unbound), or has begun after it (Bound, Resumed)
	Buried     bool      // Paused: its contacts have been told that it has gone, with its node
	Replaying  bool      // pending messages are on their way; live ones wait in the archive
	Device     string    // SASL2 user-agent id, when the client gave one (XEP-0388 §2.3)
	Remote     string    // the peer's network address, for operators
	Secure     bool      // the stream is encrypted
	Transport  string    // tcp, tls, websocket, component
	BoundAt    time.Time
}

// Entry is an immutable snapshot of one session.
type Entry struct {
	Ref
	State
	missed   bool               // a live message was held back while Replaying
	replayed map[int64]struct{} // rows whose live copies may still be on their way; never changed
}

// Receives reports whether messages to the bare JID reach this session: it is
// available with a non-negative priority (RFC 6121 §8.5.2.1.1).
func (e *Entry) Receives() bool { return e.Available && e.Priority >= 0 }

const shardCount = 64

type shard struct {
	mu       sync.RWMutex
	accounts map[string][]*Entry     // by bare JID; slices are never changed in place
	hidden   map[string][]*Entry     // mirror.go; likewise
	gone     map[Ref][]chan struct{} // who waits for a session's end
	ousted   map[Ref]*Entry          // of this node, replaced from elsewhere: their streams have not ended yet
	awaited  map[*awaiting]struct{}  // await.go
	_        [64]byte                // shards are locked by different cores
}

// Registry is safe for concurrent use. What it returns is immutable.
type Registry struct {
	seed   maphash.Seed
	shards [shardCount]shard
	mirror mirror

	hooks   sync.RWMutex   // guards adopted
	adopted []func(*Entry) // told of other nodes' sessions
}

// NewRegistry returns an empty registry.
func NewRegistry() *Registry {
	r := &Registry{seed: maphash.MakeSeed()}
	for i := range r.shards {
		r.shards[i].accounts, r.shards[i].hidden = make(map[string][]*Entry), make(map[string][]*Entry)
	}
	return r
}

func (r *Registry) shard(bare string) *shard {
	return &r.shards[maphash.String(r.seed, bare)%shardCount]
}

// Bind adds a session. An entry of the same full JID is replaced and returned:
// never two sessions with one address (RFC 6120 §7.7.2.2).
func (r *Registry) Bind(ref Ref, st State) (replaced *Entry) {
	replaced, _ = r.BindIf(ref, st, func([]*Entry) string { return "" })
	return replaced
}

// BindIf is Bind unless refuse, which sees the account's sessions and decides
// while no other can come, returns why not. It must not use the Registry.
// Other nodes hear of it by Show, when it is ready for what they send.
func (r *Registry) BindIf(ref Ref, st State, refuse func(all []*Entry) string) (replaced *Entry, why string) {
	bare := ref.JID.Bare().String()
	s := r.shard(bare)
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.accounts[bare]
	if why = refuse(old); why != "" {
		return nil, why
	}
	list := make([]*Entry, 0, len(old)+1)
	for _, e := range old {
		if e.JID == ref.JID {
			replaced = e
			s.left(e.Ref)
			if r.elsewhere(e) {
				s.hidden[bare] = append(s.hidden[bare], e)
			}
			continue
		}
		list = append(list, e)
	}
	fresh := &Entry{Ref: ref, State: st}
	s.accounts[bare] = append(list, fresh)
	s.came(fresh)
	return replaced, ""
}

// Unbind removes the session if it is still this very stream's, or was ousted
// (Adopt), and returns its last state; once.
// Other nodes hear of it by Show, after whom it concerns.
func (r *Registry) Unbind(ref Ref) (*Entry, bool) {
	e, ok, news := r.unbind(ref)
	r.tell(news)
	return e, ok
}

func (r *Registry) unbind(ref Ref) (was *Entry, ok bool, news []*Entry) {
	bare := ref.JID.Bare().String()
	s := r.shard(bare)
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.accounts[bare]
	i := slices.IndexFunc(old, func(e *Entry) bool { return e.Ref == ref })
	if i < 0 {
		s.hide(bare, slices.DeleteFunc(s.hidden[bare], func(e *Entry) bool { return e.Ref == ref }))
		e, ousted := s.ousted[ref]
		delete(s.ousted, ref)
		return e, ousted, nil
	}
	s.left(ref)
	list := make([]*Entry, 0, len(old)-1)
	list = append(append(list, old[:i]...), old[i+1:]...)
	return old[i], true, s.set(bare, list, s.hidden[bare])
}

// Change replaces the session's state by what f makes of a copy of it and
// returns the new entry. It reports false when the stream is not bound.
func (r *Registry) Change(ref Ref, f func(*State)) (*Entry, bool) {
	if r.mirror.to == nil {
		return r.update(ref, func(e *Entry) { f(&e.State) })
	}
	seen := false
	e, ok := r.update(ref, func(e *Entry) {
		before := e.State
		f(&e.State)
		seen = !before.looks(&e.State)
	})
	if seen {
		r.mirror.show(ref)
	}
	return e, ok
}

func (r *Registry) update(ref Ref, f func(*Entry)) (*Entry, bool) {
	bare := ref.JID.Bare().String()
	s := r.shard(bare)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, e := range s.accounts[bare] {
		if e.Ref != ref {
			continue
		}
		fresh := *e
		f(&fresh)
		list := append([]*Entry(nil), s.accounts[bare]...)
		list[i] = &fresh
		s.accounts[bare] = list
		return &fresh, true
	}
	return nil, false
}

// Account returns the sessions of a bare JID in the order of their binding.
// The slice must not be changed.
func (r *Registry) Account(bare jid.JID) []*Entry {
	key := bare.String()
	s := r.shard(key)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.accounts[key]
}

// Find returns the session that is bound to exactly this address.
func (r *Registry) Find(full jid.JID) (*Entry, bool) {
	for _, e := range r.Account(full.Bare()) {
		if e.JID == full {
			return e, true
		}
	}
	return nil, false
}

// Had reports whether the replay that has just ended brought the row: it was
// committed before the replay looked for the last time, and routed after it.
func (e *Entry) Had(row int64) bool {
	_, had := e.replayed[row]
	return had
}

// Holds reports whether the live copy of a row must not go to the session: its
// pending messages are still being replayed, which is noted (the message is in
// the archive, so the replay finds it), or the replay has brought it.
func (r *Registry) Holds(ref Ref, row int64) (holds bool) {
	r.update(ref, func(e *Entry) {
		holds = e.Replaying || e.Had(row)
		e.missed = e.Replaying
	})
	return holds
}

// Miss lets a replay that is at work look into the archive once more. It reports
// false when there is none.
func (r *Registry) Miss(ref Ref) (replaying bool) {
	r.update(ref, func(e *Entry) {
		replaying = e.Replaying
		e.missed = e.missed || e.Replaying
	})
	return replaying
}

// GoLive ends a replay. It reports false, and the replay has to look into the
// archive once more, when a live message was held back since the last call.
// had are rows the replay has brought whose live copies may still come; it is
// kept until Settle.
func (r *Registry) GoLive(ref Ref, had map[int64]struct{}) (live bool) {
	live = true
	r.update(ref, func(e *Entry) {
		live = !e.missed
		e.missed = false
		e.Replaying = !live
		if live {
			e.replayed = had
		}
	})
	return live
}

// Settle forgets what GoLive was told: no live copies are on their way any more.
func (r *Registry) Settle(ref Ref) {
	r.update(ref, func(e *Entry) { e.replayed = nil })
}

// Each calls f for every session until f returns false; for counting and for
// operators' lists, not for routing.
func (r *Registry) Each(f func(*Entry) bool) {
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.RLock()
		var all []*Entry
		for _, list := range s.accounts {
			all = append(all, list...)
		}
		s.mu.RUnlock()
		for _, e := range all {
			if !f(e) {
				return
			}
		}
	}
}

// Len returns how many streams are bound.
func (r *Registry) Len() (n int) {
	r.Each(func(*Entry) bool { n++; return true })
	return n
}
