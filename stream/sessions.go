package stream

import "sync"

// sessionShards spreads the locks of a sessionTable over cores.
const sessionShards = 32

// sessionTable are the bound streams by the numbers of the connections they
// were bound on; every delivery looks one up.
type sessionTable [sessionShards]struct {
	mu   sync.RWMutex
	byID map[uint64]*Session
	_    [64]byte
}

func (t *sessionTable) find(conn uint64) (*Session, bool) {
	s := &t[conn%sessionShards]
	s.mu.RLock()
	defer s.mu.RUnlock()
	sess, ok := s.byID[conn]
	return sess, ok
}

func (t *sessionTable) add(conn uint64, sess *Session) {
	s := &t[conn%sessionShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.byID == nil {
		s.byID = map[uint64]*Session{}
	}
	s.byID[conn] = sess
}

func (t *sessionTable) remove(conn uint64) {
	s := &t[conn%sessionShards]
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byID, conn)
}

func (t *sessionTable) len() (n int) {
	for i := range t {
		s := &t[i]
		s.mu.RLock()
		n += len(s.byID)
		s.mu.RUnlock()
	}
	return n
}

// each calls f for every session, with no lock held.
func (t *sessionTable) each(f func(*Session)) {
	var all []*Session
	for i := range t {
		s := &t[i]
		all = all[:0]
		s.mu.RLock()
		for _, sess := range s.byID {
			all = append(all, sess)
		}
		s.mu.RUnlock()
		for _, sess := range all {
			f(sess)
		}
	}
}
