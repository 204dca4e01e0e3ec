package stream

import (
	"context"

	"parley/router/channel"
)

// management is stream management of one session (XEP-0198).
type management struct{}

func (m *management) ackOwed(*Session) bool                    { return false }
func (m *management) sent(*channel.Envelope, []byte)           {}
func (m *management) bytes() int                               { return 0 }
func (m *management) request(*Session)                         {}
func (m *management) resumable() bool                          { return false }
func (m *management) leftovers(*Session) []*channel.Envelope   { return nil }
func (s *Session) hibernate()                                  {}
func (s *Session) tellHibernated(ctx context.Context, is bool) {}
func (s *Server) forget(*Session)                              {}
func (s *Server) endHibernated()                               {}

// csi is client state indication (XEP-0352).
type csi struct{}

func (c *csi) holds(*channel.Envelope, []byte) bool { return false }
func (c *csi) release(*Session)                     {}
