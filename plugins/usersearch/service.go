package usersearch

import (
	"context"
	"errors"
	"strconv"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/rsm"
	"parley/plugins/disco"
	"parley/processor"
	"parley/router/cluster/owner"
)

// key says which stanzas are for a directory; any node answers them
// (processor.Owned).
func (s *service) key(st *stanza.Stanza) (string, bool) {
	_, ours := s.hosts.Of(st.To.Domain())
	return "", ours
}

// handle answers what is sent to a directory.
func (s *service) handle(ctx context.Context, st *stanza.Stanza, _ *owner.Hold) (*stanza.Element, error) {
	return disco.Service{Describe: s.describe, Serve: s.serve}.Handle(ctx, st)
}

// describe is how clients tell a directory of people from one of rooms.
func (s *service) describe(_ jid.JID, f *disco.Facts) {
	f.AddIdentity(disco.Identity{Category: "directory", Type: "user", Name: s.cfg.Name})
	f.AddFeature(NS, stanza.NSDataForms, rsm.NS)
}

// listed names the directory among what belongs to its domain.
func (s *service) listed(_ context.Context, a *disco.ItemsAnswer) (processor.Verdict, error) {
	if !a.Server() || a.Node != "" {
		return processor.Continue, nil
	}
	if at, ours := s.hosts.At(a.Owner.Domain()); ours {
		a.Items = append(a.Items, disco.Item{JID: at, Name: s.cfg.Name})
	}
	return processor.Continue, nil
}

func (s *service) serve(ctx context.Context, st *stanza.Stanza, q *stanza.Element) (*stanza.Element, error) {
	if q.Name != (stanza.Name{Space: NS, Local: "query"}) {
		return nil, stanza.NewError(stanza.ServiceUnavailable, "")
	}
	domain, _ := s.hosts.Of(st.To.Domain())
	if !s.may(st.From, domain) {
		return nil, stanza.NewError(stanza.Forbidden, "this directory is not for you")
	}
	if st.Type == stanza.TypeGet {
		return emptySearch(), nil
	}
	out, err := s.search(ctx, st.From.Bare(), domain, q)
	var refused *stanza.Error
	switch {
	case err == nil:
		s.m.searches.WithLabelValues("answered").Inc()
	case errors.As(err, &refused):
		s.m.searches.WithLabelValues(string(refused.Condition)).Inc()
	default:
		s.m.searches.WithLabelValues("failed").Inc()
	}
	return out, err
}

// may reports whether somebody may search in the directory of a domain.
func (s *service) may(who jid.JID, domain string) bool {
	switch {
	case who.Local() == "":
		return false
	case s.cfg.Who == OwnDomain:
		return who.Domain() == domain
	case s.cfg.Who == OwnServer:
		return s.env.Local(who.Domain())
	}
	return true
}

// count lets somebody search once more, or not: who has patience shall not have
// everybody's address.
func (s *service) count(ctx context.Context, who jid.JID) error {
	searcher := who
	if !s.env.Local(who.Domain()) { // of addresses elsewhere there are as many as somebody likes
		searcher = who.Host()
	}
	a := s.cfg.allowance()
	ok, err := s.store.take(ctx, searcher.String(), s.env.Clock.Now(), a)
	if err != nil || ok {
		return err
	}
	return stanza.NewError(stanza.ResourceConstraint, "too many searches; try again in "+strconv.Itoa(int((a.every+time.Second-1)/time.Second))+" seconds")
}
