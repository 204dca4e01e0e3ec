package upload

import (
	"context"
	"strconv"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins/disco"
	"parley/processor"
	"parley/router/cluster/owner"
)

// nsPing is XEP-0199 §4.
const nsPing = "urn:xmpp:ping"

// key says which stanzas are for a service; any node answers them
// (processor.Owned).
func (s *service) key(st *stanza.Stanza) (string, bool) {
	_, ours := s.hosts[st.To.Domain()]
	return "", ours
}

// handle answers what is sent to a service.
func (s *service) handle(ctx context.Context, st *stanza.Stanza, _ *owner.Hold) (*stanza.Element, error) {
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
		return s.describe(st.To, q)
	case stanza.Name{Space: stanza.NSDiscoItem, Local: "query"}:
		return stanza.El(stanza.NSDiscoItem, "query").WithOpt("node", q.Get("node")), nil
	case stanza.Name{Space: nsPing, Local: "ping"}:
		return nil, nil
	case stanza.Name{Space: NS, Local: "request"}:
		return s.request(ctx, st, q)
	case stanza.Name{Space: NSFiles, Local: "files"}:
		return s.files(ctx, st, q)
	case stanza.Name{Space: NSFiles, Local: "file"}:
		return s.file(ctx, st, q)
	case stanza.Name{Space: NSFiles, Local: "delete"}:
		return s.delete(ctx, st, q)
	}
	return nil, stanza.NewError(stanza.ServiceUnavailable, "")
}

// describe is XEP-0363 §3.
func (s *service) describe(at jid.JID, q *stanza.Element) (*stanza.Element, error) {
	if q.Get("node") != "" {
		return nil, stanza.NewError(stanza.ItemNotFound, "no such node")
	}
	f := &disco.Facts{}
	f.AddIdentity(disco.Identity{Category: "store", Type: "file", Name: s.cfg.Name})
	f.AddFeature(stanza.NSDiscoInfo, stanza.NSDiscoItem, nsPing)
	if s.base(s.hosts[at.Domain()]) == "" {
		return f.Element(""), nil
	}
	f.AddFeature(NS, NSFiles)
	for _, p := range purposes { // XEP-0363 §5.1 to §5.4
		if p.of(&s.cfg).MaxSize > 0 {
			f.AddFeature(NSPurpose + "#" + p.name)
		}
	}
	f.AddForm(disco.Form{Type: NS, Fields: []disco.Field{{Var: "max-file-size", Values: []string{strconv.FormatInt(s.cfg.largest(), 10)}}}})
	return f.Element(""), nil
}

// listed names the service among what belongs to its domain (XEP-0363 §3), when
// there is somewhere to upload to.
func (s *service) listed(_ context.Context, a *disco.ItemsAnswer) (processor.Verdict, error) {
	if !a.Server() || a.Node != "" {
		return processor.Continue, nil
	}
	for host, domain := range s.hosts {
		if domain == a.Owner.Domain() && s.base(domain) != "" {
			at, err := jid.New("", host, "")
			if err != nil {
				return processor.Continue, err
			}
			a.Items = append(a.Items, disco.Item{JID: at, Name: s.cfg.Name})
		}
	}
	return processor.Continue, nil
}
