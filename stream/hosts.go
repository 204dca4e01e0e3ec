package stream

import (
	"context"
	"slices"

	"parley/parser/stanza"
)

// What becomes of streams when the domains that are served change.

// rehosted ends what is at domains that are gone (RFC 6120 §4.9.3.5), and finds
// certificates for those that are new.
func (s *Server) rehosted(come, gone []string) {
	s.certs.rehosted(come)
	if len(gone) == 0 {
		return
	}
	why := &stanza.StreamError{Condition: stanza.StreamHostGone}
	for _, c := range s.conns.all() {
		c.voice.Lock()
		domain := c.domain
		c.voice.Unlock()
		if _, ours := c.profile.(Initiator); !ours && slices.Contains(gone, domain) {
			c.abort(why)
		}
	}
	var over []*Session
	s.sessions.each(func(sess *Session) {
		if slices.Contains(gone, sess.ref.JID.Domain()) {
			over = append(over, sess)
		}
	})
	s.later(func(ctx context.Context) { // also those that wait for their clients to come back
		for _, sess := range over {
			sess.evict(ctx, why)
		}
	})
}
