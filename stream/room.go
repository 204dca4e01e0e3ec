package stream

import "time"

// crowded reports whether n bytes that the client asked for itself have to
// wait until it has read others.
func (s *Session) crowded(n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.full(n)
}

func (s *Session) full(n int) bool {
	if s.conn == nil || s.opening || s.broken || s.conn.closing.Load() {
		return false
	}
	waiting := s.conn.tr.Pending()
	return waiting > 0 && waiting+n > s.outbox()
}

// await waits until the client has read enough for n more bytes. Only what the
// client asked for itself waits, on its own goroutine: it pauses its producer.
// A client that reads nothing for Resumption.RequestGap is gone.
func (s *Session) await(n int) {
	limit := time.NewTimer(s.srv.cfg.Resumption.RequestGap)
	defer limit.Stop()
	for {
		s.mu.Lock()
		if !s.full(n) {
			s.mu.Unlock()
			return
		}
		if s.room == nil {
			s.room = make(chan struct{})
		}
		room, c := s.room, s.conn
		s.mu.Unlock()
		if c.tr.Flush() <= 0 { // it fits now, or nothing will ever
			return
		}
		select {
		case <-room:
		case <-limit.C:
			c.log.Info("client does not read what it asked for: cut off", "jid", s.ref.JID.String())
			c.tr.Close(0)
			return
		}
	}
}

// makeRoom wakes who waits for room; s.mu is held.
func (s *Session) makeRoom() {
	if s.room != nil {
		close(s.room)
		s.room = nil
	}
}
