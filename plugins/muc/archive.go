package muc

import (
	"context"
	"time"

	"parley/parser/stanza"
	"parley/plugins/archive"
	"parley/plugins/message/kinds"
)

// The room's archive (XEP-0313 §6.1.2, rule 63): what everybody was told that lasts,
// changes of the subject included, once; nothing that was whispered.

// lasting reports whether a message of a room says something that still matters
// tomorrow, and its sender does not object.
func lasting(st *stanza.Stanza) bool {
	k := kinds.Of(st)
	return k.Has(keptKinds) && !k.Has(kinds.NoStore|kinds.NoPermanentStore)
}

const keptKinds = kinds.Body | kinds.Marker | kinds.Reaction | kinds.Edit | kinds.Encrypted | kinds.Call | kinds.File | kinds.Store

// storedForm is what is kept of a message. In a non-anonymous room it says whose it
// is.
func (r *room) storedForm(out *stanza.Stanza, x *session) *stanza.Stanza {
	if r.cfg.Whois != Anyone {
		return out
	}
	return must(copied(out, out.From, out.Type, nil, r.x(x.occupant, x.role, x.bare, told{})))
}

// remember reads what the room was told last.
func (r *room) remember(ctx context.Context) (err error) {
	if r.kept, err = r.s.kept.Room(ctx, r.jid); err != nil {
		return err
	}
	last, err := r.kept.Last(ctx, max(r.recent.most, resentRead), time.Time{})
	if err != nil {
		return err
	}
	for _, m := range last {
		if r.s.env.Clock.Now().Sub(m.At) < resentSpan {
			r.resent.note(m.Stanza)
		}
		r.reached = m.ID
	}
	r.kept.Pass(r.reached)
	return r.recent.fill(last)
}

// fill adds what the archive has.
func (h *history) fill(last []archive.RoomMessage) error {
	for _, m := range last {
		if changesSubject(m.Stanza) {
			continue
		}
		st, err := copied(m.Stanza, m.Stanza.From, stanza.TypeGroupchat, saysWho)
		if err != nil {
			return err
		}
		h.add(remembered{m.ID, st, m.At})
	}
	return nil
}

func saysWho(c stanza.Child) bool { return c.Name.Space == NSUser }

// isQuery reports whether a stanza asks the archive: results and their end take one
// road, so the node answers that the asker is on.
func isQuery(st *stanza.Stanza) bool {
	return st.Kind == stanza.IQ && (st.Type == stanza.TypeGet || st.Type == stanza.TypeSet) &&
		len(st.Children) == 1 && st.Children[0].Name.Space == archive.NS
}

// ask answers a question to a room's archive. Who may ask is looked up when it does
// (rule 63).
func (s *service) ask(ctx context.Context, st *stanza.Stanza) (*stanza.Element, error) {
	room := st.To.Bare()
	config, locks, a, inside, err := s.store.access(ctx, room, st.From)
	if s.admins[st.From.Bare()] {
		a = IsOwner
	}
	switch {
	case err != nil:
		return nil, err
	case config == nil || locks && a < IsOwner:
		return nil, noRoom()
	case a == IsOutcast, a < IsMember && (config.MembersOnly || config.Protected && !inside):
		return nil, forbidden()
	}
	kept, err := s.kept.Room(ctx, room)
	if err != nil {
		return nil, err
	}
	switch st.Children[0].Name.Local {
	case "query":
		return kept.Query(ctx, st, func(m *stanza.Stanza) []byte {
			e := m.StampForwarded()
			for _, c := range m.Children {
				if saysWho(c) && config.Whois != Anyone && a < IsAdmin {
					e.Cut = append(e.Cut, c.Span)
				}
			}
			return e.Render(nil, m.Raw)
		})
	case "metadata":
		return kept.Metadata(ctx, st)
	}
	return nil, stanza.NewError(stanza.FeatureNotImplemented, "")
}
