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

// key says which stanzas are for a service; any node answers them
// (processor.Owned).
func (s *service) key(st *stanza.Stanza) (string, bool) {
	_, ours := s.hosts.Of(st.To.Domain())
	return "", ours
}

// handle answers what is sent to a service.
func (s *service) handle(ctx context.Context, st *stanza.Stanza, _ *owner.Hold) (*stanza.Element, error) {
	return disco.Service{Describe: s.describe, Serve: s.serve}.Handle(ctx, st)
}

func (s *service) serve(ctx context.Context, st *stanza.Stanza, q *stanza.Element) (*stanza.Element, error) {
	switch q.Name {
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
func (s *service) describe(at jid.JID, f *disco.Facts) {
	f.AddIdentity(disco.Identity{Category: "store", Type: "file", Name: s.cfg.Name})
	if s.at(at) == "" {
		return
	}
	f.AddFeature(NS, NSFiles)
	for _, p := range purposes { // XEP-0363 §5.1 to §5.4
		if p.of(&s.cfg).MaxSize > 0 {
			f.AddFeature(NSPurpose + "#" + p.name)
		}
	}
	f.AddForm(disco.Form{Type: NS, Fields: []disco.Field{{Var: "max-file-size", Values: []string{strconv.FormatInt(s.cfg.largest(), 10)}}}})
}

// listed names the service among what belongs to its domain (XEP-0363 §3), when
// there is somewhere to upload to.
func (s *service) listed(_ context.Context, a *disco.ItemsAnswer) (processor.Verdict, error) {
	if !a.Server() || a.Node != "" {
		return processor.Continue, nil
	}
	if at, ours := s.hosts.At(a.Owner.Domain()); ours && s.at(at) != "" {
		a.Items = append(a.Items, disco.Item{JID: at, Name: s.cfg.Name})
	}
	return processor.Continue, nil
}
