package pushsender

import (
	"context"
	"errors"
	"strconv"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/plugins/disco"
	"parley/plugins/pubsub"
	"parley/plugins/push"
	"parley/processor"
	"parley/router/cluster/owner"
)

// formSummary is the FORM_TYPE of XEP-0357 §7.
const formSummary = "urn:xmpp:push:summary"

// maxText bounds what stands for a message's text, in bytes: all of a payload is
// within 4096 (RFC 8030 §7.2, and the other services').
const maxText = 1024

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
	if q.Name == (stanza.Name{Space: pubsub.NS, Local: "pubsub"}) {
		return nil, s.published(ctx, st, q)
	}
	return nil, stanza.NewError(stanza.ServiceUnavailable, "")
}

// describe is XEP-0357 §4.2, and a form that says what can be registered.
func (s *service) describe(_ jid.JID, f *disco.Facts) {
	f.AddIdentity(disco.Identity{Category: "pubsub", Type: "push", Name: s.cfg.Name})
	f.AddFeature(push.NS)
	about := disco.Form{Type: push.NSHouse, Fields: []disco.Field{{Var: "kinds", Values: s.kinds}}}
	if s.vapid != "" {
		about.Fields = append(about.Fields, disco.Field{Var: fieldVAPID, Values: []string{s.vapid}})
	}
	f.AddForm(about)
}

// listed names the service among what belongs to its domain, when it can reach
// anything.
func (s *service) listed(_ context.Context, a *disco.ItemsAnswer) (processor.Verdict, error) {
	if !a.Server() || a.Node != "" || len(s.kinds) == 0 {
		return processor.Continue, nil
	}
	at, err := s.at(a.Owner.Domain())
	if err == nil {
		a.Items = append(a.Items, disco.Item{JID: at, Name: s.cfg.Name})
	}
	return processor.Continue, err
}

// telling adds what only our own service may know: how many calls are among what
// waits.
func (s *service) telling(_ context.Context, n *push.Notice) (processor.Verdict, error) {
	if _, ours := s.hosts.Of(n.Service.Domain()); ours && n.Calls > 0 {
		n.Notification.Add(stanza.El(push.NSHouse, "calls").AddText(strconv.Itoa(n.Calls)))
	}
	return processor.Continue, nil
}

// published answers a request to publish: our own server's by Submit, others' as
// usual.
func (s *service) published(ctx context.Context, st *stanza.Stanza, q *stanza.Element) error {
	err := s.publish(ctx, st, q)
	var no *stanza.Error
	if errors.As(err, &no) && st.From == st.From.Host() && s.env.Local(st.From.Domain()) {
		s.answer(ctx, &job{from: st.From, at: st.To, id: st.ID}, no)
		return processor.ErrUnanswered
	}
	return err
}

// publish is XEP-0357 §7. What is well is answered when it has been sent.
func (s *service) publish(ctx context.Context, st *stanza.Stanza, q *stanza.Element) error {
	if st.Type != stanza.TypeSet {
		return stanza.NewError(stanza.BadRequest, "publishing is a request of type set")
	}
	// XEP-0357 §4.1: only an account's server may; ours alone has registered accounts.
	if of, ours := s.hosts.Of(st.To.Domain()); !ours || st.From != st.From.Host() || of != st.From.Domain() {
		return stanza.NewError(stanza.Forbidden, "only the server of an account may publish")
	}
	p := q.Child(pubsub.NS, "publish")
	if p == nil {
		return stanza.NewError(stanza.FeatureNotImplemented, "this service takes notifications alone")
	}
	n, err := readNote(p)
	if err != nil {
		return err
	}
	secret, err := readSecret(q)
	if err != nil {
		return err
	}
	found, err := s.store.find(ctx, p.Get("node"))
	if err != nil {
		return err
	}
	if found == nil || !found.opens(secret) || found.owner.Domain() != st.From.Domain() {
		s.m.sent.WithLabelValues("unknown", "refused").Inc()
		return stanza.NewError(stanza.ItemNotFound, "there is no such registration") // XEP-0357 §7.1: it will be disabled
	}
	n.to = *found
	if !s.cfg.Text || !n.to.text {
		n.body, n.sender = "", ""
	}
	return s.accept(&job{note: n, from: st.From, at: st.To, id: st.ID})
}

// readNote reads a notification (XEP-0357 §7).
func readNote(p *stanza.Element) (note, error) {
	n := note{count: 1}
	item := p.Child(pubsub.NS, "item")
	if item == nil {
		return n, stanza.NewError(stanza.BadRequest, "there is no item")
	}
	el := item.Child(push.NS, "notification")
	if el == nil {
		return n, stanza.NewError(stanza.BadRequest, "the item is no notification")
	}
	if c := el.Child(push.NSHouse, "calls"); c != nil {
		n.calls = number(c.Text(), 0)
	}
	x := form.In(el)
	if x == nil {
		return n, nil
	}
	f, err := form.Parse(x)
	if err != nil {
		return n, err
	}
	if f.Type == formSummary {
		n.count = number(f.Value("message-count"), 1)
		n.body, n.sender = clip(f.Value("last-message-body")), clip(f.Value("last-message-sender"))
	}
	return n, nil
}

// readSecret is the secret among the publish-options; "": there is none.
func readSecret(q *stanza.Element) (string, error) {
	o := q.Child(pubsub.NS, "publish-options")
	if o == nil {
		return "", nil
	}
	x := form.In(o)
	if x == nil {
		return "", nil
	}
	f, err := form.Submitted(x, pubsub.FormPublish)
	if err != nil {
		return "", err
	}
	return f.Value(fieldSecret), nil
}

// maxNumber is what is told of more, too.
const maxNumber = 1_000_000

func number(s string, other int) int {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return other
	}
	return min(n, maxNumber)
}

// clip bounds a text, at the border of a letter.
func clip(s string) string {
	if len(s) <= maxText {
		return s
	}
	at := maxText
	for at > 0 && s[at]&0xC0 == 0x80 {
		at--
	}
	return s[:at]
}

// answer ends a job: nil is success. The house asks, so the answer arrives here.
func (s *service) answer(ctx context.Context, j *job, refused *stanza.Error) {
	a := stanza.Make(stanza.IQ, stanza.TypeResult, j.at, j.from, j.id)
	if refused != nil {
		a = stanza.Make(stanza.IQ, stanza.TypeError, j.at, j.from, j.id, refused.Element())
	}
	s.reg.Submit(ctx, a)
}
