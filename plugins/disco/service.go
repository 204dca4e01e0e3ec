package disco

import (
	"context"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/processor"
)

// NSPing is that of XEP-0199, which services answer (§4).
const NSPing = "urn:xmpp:ping"

// Service answers what is sent to a service of the house that only takes requests, at
// a domain of its own.
type Service struct {
	// Describe fills in what the service at a domain is (XEP-0030 §3); that it answers
	// disco and pings is there already.
	Describe func(at jid.JID, f *Facts)
	// Serve has every other request with its payload.
	Serve func(ctx context.Context, st *stanza.Stanza, q *stanza.Element) (*stanza.Element, error)
}

// Handle is processor.Owned's.
func (s Service) Handle(ctx context.Context, st *stanza.Stanza) (*stanza.Element, error) {
	switch {
	case st.Kind != stanza.IQ && (st.Kind == stanza.Presence || st.Type == stanza.TypeError):
		return nil, nil
	case st.Kind != stanza.IQ:
		return nil, stanza.NewError(stanza.ServiceUnavailable, "messages are for people")
	case st.Type == stanza.TypeError, st.Type == stanza.TypeResult:
		return nil, processor.ErrUnanswered
	case st.To.Local() != "" || st.To.IsFull():
		return nil, stanza.NewError(stanza.ServiceUnavailable, "")
	}
	q := st.Payload()
	if q == nil {
		return nil, stanza.NewError(stanza.BadRequest, "a request has exactly one payload")
	}
	switch q.Name {
	case stanza.Name{Space: stanza.NSDiscoInfo, Local: "query"}:
		if q.Get("node") != "" {
			return nil, stanza.NewError(stanza.ItemNotFound, "no such node")
		}
		f := &Facts{}
		f.AddFeature(stanza.NSDiscoInfo, stanza.NSDiscoItem, NSPing)
		s.Describe(st.To, f)
		return f.Element(""), nil
	case stanza.Name{Space: stanza.NSDiscoItem, Local: "query"}:
		return stanza.El(stanza.NSDiscoItem, "query").WithOpt("node", q.Get("node")), nil
	case stanza.Name{Space: NSPing, Local: "ping"}:
		return nil, nil
	}
	return s.Serve(ctx, st, q)
}
