package stream

import (
	"time"

	"parley/parser/jid"
)

// Login is a client that has named itself and logged in (XEP-0388 §2.3).
type Login struct {
	Account          jid.JID // bare
	Agent            string  // its id; "": it has none
	Software, Device string  // for people; "": it does not say
	Password         bool    // else with a token (XEP-0484)
	At               time.Time
}

// loggedIn tells the features that want to know.
func (s *Server) loggedIn(in Login) {
	t := s.acquire()
	defer t.Leave()
	for _, r := range t.parts {
		if r.loggedIn != nil {
			r.loggedIn(in)
		}
	}
}
