package stream

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"strings"

	"parley/parser/stanza"
	"parley/router/channel"
	"parley/router/sessions"
)

// maxTag is how many runes of a client's tag become part of its resource.
const maxTag = 64

// advertiseBind2 lists what a client may switch on while it binds
// (XEP-0386 §3.1).
func advertiseBind2(t *table) *stanza.Element {
	inline := stanza.El(stanza.NSBind2, "inline")
	seen := map[string]bool{"": true}
	add := func(ns string) {
		if !seen[ns] {
			seen[ns] = true
			inline.Add(stanza.El(stanza.NSBind2, "feature").With("var", ns))
		}
	}
	for _, i := range t.inlines {
		add(i.Name.Space)
	}
	add(stanza.NSCSI)
	add(stanza.NSSM)
	return stanza.El(stanza.NSBind2, "bind").Add(inline)
}

// bind2 binds the stream and returns <bound/> (XEP-0386 §3.2), or <failed/>
// with a stanza error's condition: then the client may bind the classic way.
func (c *Conn) bind2(ctx context.Context, el *stanza.Element) *stanza.Element {
	bound := stanza.El(stanza.NSBind2, "bound")
	c.endEarlier(ctx)
	var st sessions.State
	for _, i := range c.srv.table.Load().inlines {
		asked := el.Child(i.Name.Space, i.Name.Local)
		if asked == nil && !i.Always {
			continue
		}
		if answer := i.Handle(ctx, c, asked, &st); answer != nil {
			bound.Add(answer)
		}
	}
	if _, err := c.Bind(ctx, c.resource(el.Child(stanza.NSBind2, "tag")), st); err != nil {
		why := asStanzaError(c, err)
		return stanza.El(stanza.NSBind2, "failed").Add(stanza.El(stanza.NSStanzas, string(why.Condition)))
	}
	s := c.session
	s.mu.Lock()
	if e := el.Child(stanza.NSSM, "enable"); e != nil { // XEP-0198 §9.1
		bound.Add(s.enable(e))
	}
	s.csi.inactive = el.Child(stanza.NSCSI, "inactive") != nil
	s.mu.Unlock()
	s.passNotes()
	return bound
}

// resource is the client's tag and an identifier of ours (XEP-0386 §3.2.1).
// A client that names itself gets the same one each time; the name itself,
// which is nobody's business, cannot be computed from it.
func (c *Conn) resource(tag *stanza.Element) string {
	id := rand.Text()[:12]
	if c.device != "" {
		sum := sha256.Sum256([]byte("parley bind 2 resource\x00" + c.account.String() + "\x00" + c.device))
		id = strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:8]))
	}
	if tag != nil {
		if name := printable(tag.Text(), maxTag); name != "" {
			return name + "/" + id
		}
	}
	return id
}

// endEarlier ends what this very client has left behind (XEP-0386 §3.2).
func (c *Conn) endEarlier(ctx context.Context) {
	if c.device == "" {
		return
	}
	conflict := &stanza.StreamError{Condition: stanza.StreamConflict}
	for _, e := range c.srv.env.Sessions.Account(c.account) {
		if e.Device != c.device {
			continue
		}
		if s, ok := c.srv.session(e.Ref); ok {
			s.retire(ctx, conflict)
			continue
		}
		far := &channel.Envelope{Kind: channel.Close, To: []sessions.Ref{e.Ref}, Reason: string(conflict.Condition)}
		if err := c.srv.send(ctx, far); err != nil {
			c.srv.unsent("earlier session not ended", err, "jid", e.JID.String())
		}
	}
}
