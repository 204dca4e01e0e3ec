package stream

import (
	"context"

	"parley/parser/stanza"
)

// Orphaned ends every session at once: what has handled their stanzas, on another
// node, is gone, and nobody is there to be told. Their clients come back to the
// next one and resume what the database knows of them (XEP-0198 §5).
func (s *Server) Orphaned(context.Context) {
	s.sessions.each(func(sess *Session) { sess.orphan() })
}

func (s *Session) orphan() {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return
	}
	c := s.conn
	s.ended, s.conn = true, nil
	s.makeRoom()
	_ = s.leftovers() // pending rows are the next one's
	m := s.sm
	s.mu.Unlock()
	s.srv.sessions.remove(s.ref.Conn)
	_ = s.srv.acks.takeOf(s.ref)
	if m != nil {
		s.srv.resumes.remove(m.key)
	}
	select {
	case s.bindDone <- string(stanza.RemoteServerTimeout):
	default:
	}
	if c != nil {
		c.abort(&stanza.StreamError{Condition: stanza.StreamSystemShutdown})
		c.tr.Close(0)
	}
}
