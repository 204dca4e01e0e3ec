package avatar

import (
	"context"
	"strings"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins/vcard"
	"parley/processor"
	"parley/router/sessions"
)

// outgoing adds the hash of the picture to a client's available presence, also to
// what it sends to single addresses, as to rooms (XEP-0398 §4). A client that says
// that there is no picture is left alone.
func (c *component) outgoing(ctx context.Context, f *processor.Flow) (processor.Verdict, error) {
	if f.Kind != stanza.Presence || f.Type != "" || f.Session.Kind != sessions.Client {
		return processor.Continue, nil
	}
	said, says := saysOf(f.Stanza)
	if says == none {
		return processor.Continue, nil
	}
	hash, err := c.hash(ctx, f.Session.JID.Bare())
	switch {
	case err != nil: // who is there is more important than what they look like
		c.env.Log.Error("presence goes out without the hash of the picture", "jid", f.Session.JID.String(), "err", err)
		return processor.Continue, nil
	case hash == "" && says != unready, hash == said && says == something:
		return processor.Continue, nil
	}
	for _, ch := range f.Children {
		if ch.Name == update {
			f.Cut(ch)
		}
	}
	f.Append(stanza.El(NSUpdate, "x").Add(stanza.El(NSUpdate, "photo").AddText(hash)))
	return processor.Continue, f.Settle()
}

var update = stanza.Name{Space: NSUpdate, Local: "x"}

// saying is what a client's presence says of its picture (XEP-0153 §4.1).
type saying uint8

const (
	nothing   saying = iota // the client knows nothing of that
	unready                 // it is not ready to say
	none                    // there is no picture
	something               // a hash
)

func saysOf(st *stanza.Stanza) (hash string, says saying) {
	x := st.Child(NSUpdate, "x")
	if x == nil {
		return "", nothing
	}
	photo := x.Child(NSUpdate, "photo")
	if photo == nil {
		return "", unready
	}
	if hash = strings.TrimSpace(photo.Text()); hash == "" {
		return "", none
	}
	return hash, something
}

// hash is that of the account's picture, or "".
func (c *component) hash(ctx context.Context, account jid.JID) (string, error) {
	return c.hashes.Load(ctx, account, func(ctx context.Context, account jid.JID) (string, error) {
		p, err := c.ofNodes(ctx, account)
		if err != nil {
			return "", err
		}
		if p != nil {
			hidden, err := c.hidden(ctx, account)
			if hidden {
				return "", err
			}
			return p.hash, err
		}
		card, err := c.cards.Get(ctx, account)
		if err != nil || card == nil {
			return "", err
		}
		return ofCard(card), nil
	})
}

// ofCard is the hash of a photo that has stayed in the vCard.
func ofCard(card *stanza.Element) string {
	photo := card.Child(vcard.NS, "PHOTO")
	if photo == nil {
		return ""
	}
	binval := photo.Child(vcard.NS, "BINVAL")
	if binval == nil {
		return ""
	}
	p, _, ok := read(binval.Text(), "")
	if !ok {
		return ""
	}
	return p.hash
}
