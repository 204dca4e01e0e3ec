package muc

import (
	"context"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/rsm"
	"parley/plugins/disco"
	"parley/processor"
)

// atService answers what is for the service itself (XEP-0045 §6.1 to §6.3). Any node
// does.
func (s *service) atService(ctx context.Context, st *stanza.Stanza) (*stanza.Element, error) {
	switch {
	case st.To.Local() != "":
		return s.ask(ctx, st)
	case st.Kind == stanza.Presence, st.Type == stanza.TypeError, st.Type == stanza.TypeResult:
		return nil, nil
	case st.Kind == stanza.Message:
		return nil, stanza.NewError(stanza.ServiceUnavailable, "messages are for rooms")
	}
	q := st.Payload()
	if q == nil {
		return nil, stanza.NewError(stanza.BadRequest, "a request has exactly one payload")
	}
	switch q.Name {
	case stanza.Name{Space: stanza.NSDiscoInfo, Local: "query"}:
		return s.describe(q)
	case stanza.Name{Space: stanza.NSDiscoItem, Local: "query"}:
		return s.directory(ctx, st.To, q)
	case stanza.Name{Space: nsPing, Local: "ping"}:
		return nil, nil
	case stanza.Name{Space: nsSearch, Local: "search"}:
		return s.search(ctx, st, q)
	}
	return s.others(ctx, &Question{Stanza: st, Query: q})
}

// always are the features of the service and of each room.
var always = []string{
	stanza.NSDiscoInfo, stanza.NSDiscoItem, NS, NS + "#stable_id", NS + "#self-ping-optimization",
	nsRoomConfig, nsRoomInfo, nsRegister, nsRequest, nsOccupantID, stanza.NSStanzaID, nsPing,
}

func (s *service) describe(q *stanza.Element) (*stanza.Element, error) {
	if q.Get("node") != "" {
		return nil, stanza.NewError(stanza.ItemNotFound, "no such node")
	}
	f := &disco.Facts{}
	f.AddIdentity(disco.Identity{Category: "conference", Type: "text", Name: s.cfg.Name})
	f.AddFeature(always...)
	f.AddFeature("muc_rooms", rsm.NS, nsSearch)
	f.AddFeature(extraFeatures...)
	return f.Element(""), nil
}

// directoryPage is how many rooms are listed at a time.
const directoryPage = 100

// directory lists the public rooms, a page at a time (XEP-0045 §6.3, XEP-0059).
func (s *service) directory(ctx context.Context, at jid.JID, q *stanza.Element) (*stanza.Element, error) {
	if q.Get("node") != "" {
		return nil, stanza.NewError(stanza.ItemNotFound, "no such node")
	}
	page, err := rsm.Parse(q)
	if err != nil {
		return nil, err
	}
	places, more, err := s.store.listed(ctx, at.Domain(), page, page.Limit(directoryPage))
	if err != nil {
		return nil, err
	}
	out := stanza.El(stanza.NSDiscoItem, "query")
	p := rsm.Page{Index: -1, Count: -1}
	for i, room := range places {
		name := room.name
		if name == "" {
			name = room.room.Local()
		}
		out.Add(stanza.El(stanza.NSDiscoItem, "item").With("jid", room.room.String()).With("name", name))
		if i == 0 {
			p.First = room.room.String()
		}
		p.Last = room.room.String()
	}
	if page != nil || more {
		out.Add(p.Element())
	}
	return out, nil
}

// listed names the service among what belongs to its domain (XEP-0045 §6.1).
func (s *service) listed(_ context.Context, a *disco.ItemsAnswer) (processor.Verdict, error) {
	if !a.Server() || a.Node != "" {
		return processor.Continue, nil
	}
	if at, ours := s.hosts.At(a.Owner.Domain()); ours {
		a.Items = append(a.Items, disco.Item{JID: at, Name: s.cfg.Name})
	}
	return processor.Continue, nil
}
