package stream

import (
	"context"
	"errors"
	"log/slog"

	"parley/parser/stanza"
	"parley/router/channel"
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
	s.ended, s.orphaned, s.conn = true, true, nil
	s.makeRoom()
	s.wakeSettled()
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
		c.abort(shutdown())
		c.tr.Close(0)
	}
}

func shutdown() *stanza.StreamError {
	return &stanza.StreamError{Condition: stanza.StreamSystemShutdown}
}

// unsent logs what the house has not taken. What was for a node that is gone the next
// one knows, or nobody misses.
func (s *Server) unsent(what string, err error, about ...any) {
	level := slog.LevelError
	if errors.Is(err, channel.ErrLost) {
		level = slog.LevelDebug
	}
	s.log.Log(context.Background(), level, what, append(about, "err", err)...)
}
