package muc

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"strconv"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/storage"
)

// nsTokens is that of XEP-0488: a token lets people become members whose address who
// invites them does not know. It takes the place of a password.
const nsTokens = "urn:xmpp:muc-token-invite:0"

// Bounds of tokens (XEP-0488 §7).
const (
	maxTokens       = 100 // of one room
	maxTokensBy     = 20  // of one person who is no admin
	maxTokenAge     = 31 * 24 * time.Hour
	usualTokenAge   = 7 * 24 * time.Hour
	maxTokenCounter = 1000
)

type token struct {
	text    string
	creator jid.JID
	left    int64 // how often it can be used; negative: no limit
	expires time.Time
}

var (
	putToken = storage.Stmt{
		Name: "muc.token", SQL: `INSERT INTO muc_token (room, token, creator, uses_left, expires_at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (room, token) DO UPDATE SET uses_left = excluded.uses_left`,
		Idempotent: true,
	}
	dropToken  = storage.Stmt{Name: "muc.token.drop", SQL: `DELETE FROM muc_token WHERE room = $1 AND token = $2`, Idempotent: true}
	dropTokens = storage.Stmt{Name: "muc.tokens.drop", SQL: `DELETE FROM muc_token WHERE room = $1`, Idempotent: true}
)

const sqlTokens = `SELECT token, creator, uses_left, expires_at FROM muc_token WHERE room = $1`

func (r *room) fillTokens(ctx context.Context) error {
	all, err := storage.All(ctx, r.s.env.DB, func(row storage.Row) (*token, error) {
		t := &token{}
		var creator string
		var expires int64
		if err := row.Scan(&t.text, &creator, &t.left, &expires); err != nil {
			return nil, err
		}
		t.expires = time.UnixMicro(expires)
		var err error
		t.creator, err = jid.Parse(creator)
		return t, err
	}, sqlTokens, r.jid.String())
	if err != nil {
		return fmt.Errorf("tokens: %w", err)
	}
	r.tokens = map[string]*token{}
	for _, t := range all {
		r.tokens[t.text] = t
	}
	return nil
}

// tokenOf is the token that somebody enters with; nil: it is none that is good.
func (r *room) tokenOf(text string) *token {
	t := r.tokens[text]
	if t == nil || !r.good(t, r.s.env.Clock.Now()) {
		return nil
	}
	return t
}

// good reports whether a token can be used: it lasts no longer than its issuer may
// invite people.
func (r *room) good(t *token, now time.Time) bool {
	issuer := actor{bare: t.creator, Affiliation: r.affiliationOf(t.creator)}
	return t.left != 0 && now.Before(t.expires) && r.mayIssue(issuer) == nil
}

// admitBy makes somebody a member who has no affiliation and comes with a token
// (XEP-0488 §3.5).
func (r *room) admitBy(o *op, t *token, who jid.JID) error {
	was := r.people[who]
	c := change{who, was, affiliate{Affiliation: IsMember, nick: was.nick}}
	if err := r.possible([]change{c}); err != nil {
		return err
	}
	if t.left > 0 {
		t.left--
		r.saveToken(o, t)
	}
	r.affiliate(o, c, told{})
	return nil
}

// saveToken forgets one that is used up.
func (r *room) saveToken(o *op, t *token) {
	if t.left == 0 {
		r.dropToken(o, t)
		return
	}
	o.rows.Add(&putToken, r.jid.String(), t.text, t.creator.String(), t.left, t.expires.UnixMicro())
}

func (r *room) dropToken(o *op, t *token) {
	delete(r.tokens, t.text)
	o.rows.Add(&dropToken, r.jid.String(), t.text)
}

// notAuthorized is for who comes with a password that is none, or a token that is none
// any more (XEP-0488 §3.5).
func (r *room) notAuthorized(password string) error {
	e := stanza.NewError(stanza.NotAuthorized, "a password is needed to enter this room")
	switch {
	case password != "" && r.cfg.Protected:
		e.Text = "that is not the password of this room; ask whoever told you of the room"
	case password != "":
		e.Text, e.App = "the invitation has expired; ask for another one", stanza.El(nsTokens, "expired-token")
	}
	return e
}

// mayIssue returns why somebody may not issue tokens: who issues one makes members
// (muc#roomconfig_allowinvites).
func (r *room) mayIssue(by actor) error {
	if by.Affiliation >= IsAdmin || r.cfg.Invites && by.Affiliation >= IsMember {
		return nil
	}
	return stanza.NewError(stanza.Forbidden, "you may not invite people to this room")
}

// mayRevoke: moderators those of everybody, others their own (XEP-0488 §7).
func (t *token) mayRevoke(by actor) bool { return by.role == Moderator || t.creator == by.bare }

// issueToken is XEP-0488 §3.2 and §3.3.
func (s *service) issueToken(ctx context.Context, r *room, q *request) (*stanza.Element, error) {
	if !q.set() {
		return nil, stanza.NewError(stanza.BadRequest, "asking for a token is a set")
	}
	counter, err := unsigned(q.query, "counter")
	if err != nil {
		return nil, err
	}
	delay, err := unsigned(q.query, "delay")
	if err != nil {
		return nil, err
	}
	var out *stanza.Element
	return out, r.do(ctx, true, func(o *op) error {
		by, err := r.actorOf(q.From)
		if err != nil {
			return err
		}
		if err := r.mayIssue(by); err != nil {
			return err
		}
		now := r.s.env.Clock.Now()
		r.expireTokens(o, now)
		own := 0
		for _, t := range r.tokens {
			if t.creator == by.bare {
				own++
			}
		}
		if len(r.tokens) >= maxTokens || by.Affiliation < IsAdmin && own >= maxTokensBy {
			return r.s.limit("tokens", stanza.ResourceConstraint, "too many tokens; revoke one that is not needed")
		}
		t := &token{text: rand.Text(), creator: by.bare, left: -1, expires: now.Add(usualTokenAge)}
		if counter > 0 {
			t.left = min(counter, maxTokenCounter)
		}
		if delay > 0 {
			t.expires = now.Add(time.Duration(min(delay, int64(maxTokenAge/time.Second))) * time.Second)
		}
		r.tokens[t.text] = t
		r.saveToken(o, t)
		out = t.element(now)
		return nil
	})
}

// unsigned reads an attribute of type xs:unsignedInt; 0: it is not there.
func unsigned(el *stanza.Element, name string) (int64, error) {
	if !el.Has(name) {
		return 0, nil
	}
	n, err := strconv.ParseUint(el.Get(name), 10, 32)
	if err != nil || n == 0 {
		return 0, stanza.NewError(stanza.BadRequest, name+" is a number above 0")
	}
	return int64(n), nil //nolint:gosec // 32 bits
}

func (t *token) element(now time.Time) *stanza.Element {
	el := stanza.El(nsTokens, "token").With("delay", strconv.FormatInt(int64(t.expires.Sub(now).Round(time.Second)/time.Second), 10))
	if t.left >= 0 {
		el.With("counter", strconv.FormatInt(t.left, 10))
	}
	return el.AddText(t.text)
}

func (r *room) expireTokens(o *op, now time.Time) {
	for _, t := range r.tokens {
		if !r.good(t, now) {
			r.dropToken(o, t)
		}
	}
}

// listTokens is XEP-0488 §3.6.
func (s *service) listTokens(_ context.Context, r *room, q *request) (*stanza.Element, error) {
	if q.set() {
		return nil, stanza.NewError(stanza.BadRequest, "reading the tokens is a get")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	by, err := r.actorOf(q.From)
	if err != nil {
		return nil, err
	}
	if by.nick == "" && by.Affiliation < IsMember {
		return nil, forbidden()
	}
	now := r.s.env.Clock.Now()
	var all []*token
	for _, t := range r.tokens {
		if r.good(t, now) && t.mayRevoke(by) {
			all = append(all, t)
		}
	}
	slices.SortFunc(all, func(a, b *token) int { return cmp.Or(a.expires.Compare(b.expires), cmp.Compare(a.text, b.text)) })
	out := stanza.El(nsTokens, "tokens")
	for _, t := range all {
		out.Add(t.element(now).WithOpt("creator", r.creatorFor(by, t)))
	}
	return out, nil
}

// creatorFor is who has issued a token, for those who may see that.
func (r *room) creatorFor(by actor, t *token) string {
	if by.bare == t.creator || r.knows(by.role) {
		return t.creator.String()
	}
	return ""
}

// revokeToken is XEP-0488 §3.7.
func (s *service) revokeToken(ctx context.Context, r *room, q *request) (*stanza.Element, error) {
	if !q.set() {
		return nil, stanza.NewError(stanza.BadRequest, "revoking a token is a set")
	}
	return nil, r.do(ctx, true, func(o *op) error {
		by, err := r.actorOf(q.From)
		if err != nil {
			return err
		}
		t := r.tokens[q.query.Text()]
		mine := t != nil && t.mayRevoke(by)
		if err := r.mayIssue(by); err != nil && !mine {
			return err
		}
		if !mine {
			return stanza.NewError(stanza.ItemNotFound, "there is no such token")
		}
		r.dropToken(o, t)
		return nil
	})
}

// forgetTokens revokes those of somebody whose account is gone.
func (r *room) forgetTokens(o *op, who jid.JID) {
	for _, t := range r.tokens {
		if t.creator == who {
			r.dropToken(o, t)
		}
	}
}
