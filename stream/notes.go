package stream

// note lets whoever keeps sessions across a restart hear of something as soon as
// s.mu is free: who calls it calls passNotes after that, or tellHibernated. At a
// front it is a message to the core, which may have to wait. s.mu is held.
func (s *Session) note(f func(Resumptions)) { s.notes = append(s.notes, f) }

// passNotes tells what was noted, in order.
func (s *Session) passNotes() {
	s.telling.Lock()
	defer s.telling.Unlock()
	s.tellNotes()
}

// tellNotes is passNotes with s.telling held.
func (s *Session) tellNotes() {
	s.mu.Lock()
	notes := s.notes
	s.notes = nil
	s.mu.Unlock()
	if len(notes) == 0 {
		return
	}
	t := s.srv.acquire()
	defer t.Leave()
	if t.resumptions == nil {
		return
	}
	for _, f := range notes {
		f(t.resumptions)
	}
}
