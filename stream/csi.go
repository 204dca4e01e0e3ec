package stream

import (
	"context"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/router/channel"
)

var zeroJID jid.JID

// What an inactive client may have waiting for it; beyond it everything goes
// out.
const (
	csiStanzas = 200
	csiBytes   = 64 << 10
)

// csi is client state indication (XEP-0352). While the client is inactive the
// last presence of each sender waits and chat states are dropped; whatever is
// urgent takes what waits along in front of it, so nothing changes its place.
// Nobody else learns of the state (§6). Session.mu guards it.
type csi struct {
	inactive bool
	held     []delivery
	size     int
}

func csiFeature() Feature {
	return Feature{
		In: Authenticated | Established, Order: orderCSI,
		Advertise: func(*Conn) *stanza.Element { return stanza.El(stanza.NSCSI, "csi") },
		Elements: map[stanza.Name]ElementHandler{
			{Space: stanza.NSCSI, Local: "active"}:   csiHandler(false),
			{Space: stanza.NSCSI, Local: "inactive"}: csiHandler(true),
		},
	}
}

func csiHandler(inactive bool) ElementHandler {
	return func(_ context.Context, c *Conn, _ *stanza.Element) error {
		if c.phase != Established {
			return &stanza.StreamError{Condition: stanza.StreamNotAuthorized}
		}
		c.session.setInactive(c, inactive)
		return nil
	}
}

// setInactive is done before anything that the client sends later (§5.1). What
// a connection still says that the session has left behind is not its state.
func (s *Session) setInactive(c *Conn, is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != c {
		return
	}
	s.csi.inactive = is
	if !is {
		s.release()
		s.request()
	}
}

// holds keeps d back, or drops it; false: it has to go out now.
func (c *csi) holds(d delivery) bool {
	switch {
	case !c.inactive || d.row != 0:
		return false
	case d.class == channel.ChatState:
		return true
	case d.class != channel.Presence || d.from == zeroJID:
		return false
	}
	for i, old := range c.held {
		if old.from == d.from {
			c.size -= old.bytes()
			c.held = append(c.held[:i], c.held[i+1:]...)
			break
		}
	}
	if len(c.held) >= csiStanzas || c.size+d.bytes() > csiBytes {
		return false
	}
	c.held = append(c.held, d)
	c.size += d.bytes()
	return true
}

// release puts what waits in its place; s.mu is held.
func (s *Session) release() {
	held := s.csi.held
	s.csi.held, s.csi.size = nil, 0
	for _, d := range held {
		s.put(d)
	}
}
