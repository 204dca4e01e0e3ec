package clients

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"slices"
	"strconv"
	"strings"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/processor"
	"parley/router/sessions"
)

// holder is a client that has access, or has a session that has outlived it.
type holder struct {
	client
	id       string
	password bool // it knows the one that counts
	tokens   bool
	sessions []sessions.Ref
}

// list is XEP-0494 §3.1.
func (p *component) list(ctx context.Context, q *processor.IQ) (*stanza.Element, error) {
	if q.Set() {
		return nil, stanza.NewError(stanza.BadRequest, "the list can only be read; <revoke/> takes access away")
	}
	all, err := p.holders(ctx, q.Owner)
	if err != nil {
		return nil, err
	}
	out := stanza.El(NS, "clients")
	for i := range all {
		out.Add(all[i].element())
	}
	return out, nil
}

// element is a client as the account's owner sees it. Nothing restricts one here.
func (h *holder) element() *stanza.Element {
	auth := stanza.El(NS, "auth")
	if h.password {
		auth.Add(stanza.El(NS, "password"))
	}
	if h.tokens {
		auth.Add(stanza.El(NS, "fast"))
	}
	when := func(name string, t time.Time) *stanza.Element {
		return stanza.El(NS, name).AddText(t.UTC().Format(time.RFC3339))
	}
	el := stanza.El(NS, "client").With("id", h.id).With("type", "session").With("connected", strconv.FormatBool(len(h.sessions) > 0))
	if !h.firstSeen.IsZero() { // else its logins are not known
		el.Add(when("first-seen", h.firstSeen), when("last-seen", h.lastSeen))
	}
	el.Add(auth, stanza.El(NS, "permission").With("status", "unrestricted"))
	agent, some := stanza.El(NS, "user-agent"), false
	for _, part := range []struct{ name, text string }{{"software", h.software}, {"device", h.device}} {
		if part.text != "" {
			agent.Add(stanza.El(NS, part.name).AddText(part.text))
			some = true
		}
	}
	if some {
		el.Add(agent)
	}
	return el
}

// holders are the clients of an account: those with access, and those that are connected.
func (p *component) holders(ctx context.Context, owner jid.JID) ([]holder, error) {
	known, err := p.log.of(ctx, owner)
	if err != nil {
		return nil, err
	}
	since, err := p.accounts.PasswordSince(ctx, owner)
	if err != nil {
		return nil, err
	}
	tokens, err := p.accounts.TokenHolders(ctx, owner)
	if err != nil {
		return nil, err
	}
	now := p.env.Clock.Now()
	named := map[string]*holder{}
	for _, c := range known {
		named[c.agent] = &holder{client: c, password: !c.with.IsZero() && !c.with.Before(since)}
	}
	for agent := range tokens { // also those whose logins are not known, or not any more
		if named[agent] == nil {
			named[agent] = &holder{client: client{agent: agent}}
		}
		named[agent].tokens = true
	}
	var out []holder
	for _, e := range p.env.Sessions.Account(owner) {
		switch h := named[e.Device]; {
		case e.Kind != sessions.Client:
		case e.Device == "": // it has not said who it is, and comes back with the password
			out = append(out, holder{
				client: client{device: e.JID.Resource(), firstSeen: e.BoundAt, lastSeen: now},
				id:     opaque(owner, "session", e.JID.Resource()), password: true, sessions: []sessions.Ref{e.Ref},
			})
		case h == nil:
			named[e.Device] = &holder{client: client{agent: e.Device, firstSeen: e.BoundAt, lastSeen: now}, password: !e.BoundAt.Before(since), sessions: []sessions.Ref{e.Ref}}
		default:
			h.lastSeen, h.sessions = now, append(h.sessions, e.Ref)
			if h.firstSeen.IsZero() { // its login is about to be written
				h.firstSeen, h.password = e.BoundAt, !e.BoundAt.Before(since)
			}
		}
	}
	for _, h := range named {
		if h.password || h.tokens || len(h.sessions) > 0 {
			h.id = opaque(owner, "agent", h.agent)
			out = append(out, *h)
		}
	}
	slices.SortFunc(out, func(a, b holder) int {
		return cmp.Or(b.lastSeen.Compare(a.lastSeen), cmp.Compare(a.id, b.id))
	})
	return out, nil
}

// opaque is what a client is called: what it calls itself is half of what it logs in with.
func opaque(owner jid.JID, kind, name string) string {
	sum := sha256.Sum256([]byte("parley client\x00" + owner.String() + "\x00" + kind + "\x00" + name))
	return strings.ToLower(base32.StdEncoding.EncodeToString(sum[:10]))
}

// revoke is XEP-0494 §3.2.
func (p *component) revoke(ctx context.Context, q *processor.IQ) (*stanza.Element, error) {
	if !q.Set() {
		return nil, stanza.NewError(stanza.BadRequest, "access is taken away with a set")
	}
	id := q.Payload().Get("id")
	if id == "" {
		return nil, stanza.NewError(stanza.BadRequest, "whose access? <list/> has the ids")
	}
	all, err := p.holders(ctx, q.Owner)
	if err != nil {
		return nil, err
	}
	for i := range all {
		if all[i].id != id {
			continue
		}
		return nil, p.end(ctx, q.Owner, &all[i])
	}
	return nil, stanza.NewError(stanza.ItemNotFound, "there is no such client")
}

// end takes a client's access away.
func (p *component) end(ctx context.Context, owner jid.JID, h *holder) error {
	if h.password {
		e := stanza.NewError(stanza.ServiceUnavailable, "this client knows the password: change it, that ends its access")
		e.App = stanza.El(NS, "password-reset-required")
		return e
	}
	if err := p.accounts.RevokeTokens(ctx, owner, h.agent); err != nil {
		return err
	}
	if err := p.log.forget(ctx, owner, h.agent); err != nil {
		return err
	}
	for _, e := range p.env.Sessions.Account(owner) { // it may have come meanwhile
		if e.Kind == sessions.Client && e.Device == h.agent {
			p.house.Close(ctx, stanza.StreamNotAuthorized, e.Ref)
		}
	}
	return nil
}
