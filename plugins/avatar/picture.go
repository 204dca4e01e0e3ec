package avatar

import (
	"bytes"
	"context"
	"crypto/sha1" //nolint:gosec // it is the name of a picture, not its protection (XEP-0084 §4.2.1)
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"image"
	"image/gif"
	"image/jpeg"
	"image/png"
	"net/http"
	"strconv"
	"strings"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins/pubsub"
	"parley/plugins/vcard"
)

// picture is what an account looks like.
type picture struct {
	hash string // SHA-1 of the data, in lower-case hex
	mime string // "" when nobody has said
	text string // the data in base64
	size int    // of the data
}

// read decodes a picture; false: it is none.
func read(text, mime string) (p *picture, data []byte, ok bool) {
	text = strings.Join(strings.Fields(text), "") // XEP-0153 §4.6, XEP-0084 §4.1
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(data) == 0 {
		return nil, nil, false
	}
	sum := sha1.Sum(data) //nolint:gosec // see above
	return &picture{hash: hex.EncodeToString(sum[:]), mime: strings.TrimSpace(mime), text: text, size: len(data)}, data, true
}

// ofNodes is the picture of an account's nodes; nil: they have none. Pictures
// elsewhere, and those that are not what they are called, do not count (XEP-0398
// §3.1).
func (c *component) ofNodes(ctx context.Context, account jid.JID) (*picture, error) {
	info, err := c.info(ctx, account)
	if err != nil || info == nil {
		return nil, err
	}
	it, err := c.nodes.Item(ctx, at(account, NodeData), info.Get("id"))
	if err != nil {
		return nil, fmt.Errorf("avatar: %w", err)
	}
	if it == nil || it.Payload == nil || it.Payload.Name != (stanza.Name{Space: NodeData, Local: "data"}) {
		return nil, nil
	}
	p, _, ok := read(it.Payload.Text(), info.Get("type"))
	if !ok || p.hash != strings.ToLower(info.Get("id")) {
		return nil, nil
	}
	return p, nil
}

// info is what the account has said of its picture last; nil: nothing, or that it
// has none, or that it is elsewhere.
func (c *component) info(ctx context.Context, account jid.JID) (*stanza.Element, error) {
	n, err := c.nodes.Node(ctx, at(account, NodeMetadata))
	if err != nil || n == nil {
		return nil, err
	}
	last, err := c.nodes.Last(ctx, n.Address)
	if err != nil {
		return nil, fmt.Errorf("avatar: %w", err)
	}
	if last == nil || last.Payload == nil {
		return nil, nil
	}
	for el := range last.Payload.Elements() {
		if el.Name == (stanza.Name{Space: NodeMetadata, Local: "info"}) && !el.Has("url") && el.Get("id") != "" {
			return el, nil
		}
	}
	return nil, nil
}

// may reports whether somebody gets to see both nodes (XEP-0398 §5.2).
func (c *component) may(ctx context.Context, account, who jid.JID) (bool, error) {
	for _, node := range []string{NodeMetadata, NodeData} {
		n, err := c.nodes.Node(ctx, at(account, node))
		if err != nil || n == nil {
			return false, err
		}
		var refused *stanza.Error
		switch err := c.nodes.May(ctx, n, who); {
		case errors.Is(err, pubsub.ErrStopped), errors.As(err, &refused):
			return false, nil
		case err != nil:
			return false, err
		}
	}
	return true, nil
}

// hidden reports whether the nodes are for chosen ones, who are not to be told
// even that there is a picture.
func (c *component) hidden(ctx context.Context, account jid.JID) (bool, error) {
	for _, node := range []string{NodeMetadata, NodeData} {
		n, err := c.nodes.Node(ctx, at(account, node))
		if err != nil {
			return true, err
		}
		if n != nil && n.Settings.Access != pubsub.Open && n.Settings.Access != pubsub.Presence {
			return true, nil
		}
	}
	return false, nil
}

// photo reads the photo of a vCard (XEP-0153 §4.5); nil: it has none that could be
// published. The type is what the vCard says (XEP-0398 §3.2), if it is one of a
// picture, or else what the data looks like (XEP-0153 §5).
func (c *component) photo(card *stanza.Element) (*picture, *stanza.Element) {
	el := card.Child(vcard.NS, "PHOTO")
	if el == nil {
		return nil, nil
	}
	binval := el.Child(vcard.NS, "BINVAL")
	if binval == nil || len(binval.Text()) > 2*int(c.cfg.MaxSize) {
		return nil, nil
	}
	mime := ""
	if t := el.Child(vcard.NS, "TYPE"); t != nil {
		mime = t.Text()
	}
	p, data, ok := read(binval.Text(), mime)
	looks := http.DetectContentType(data)
	if !ok || p.size > int(c.cfg.MaxSize) || !strings.HasPrefix(looks, "image/") {
		return nil, nil
	}
	if !strings.HasPrefix(p.mime, "image/") {
		p.mime = looks
	}
	info := stanza.El(NodeMetadata, "info").With("bytes", strconv.Itoa(p.size)).With("id", p.hash).With("type", p.mime)
	if m := measures[looks]; m != nil {
		if d, err := m(data); err == nil {
			info.With("width", strconv.Itoa(d.Width)).With("height", strconv.Itoa(d.Height))
		}
	}
	return p, info
}

// measure reads how large a picture is from its first bytes.
type measure func(data []byte) (image.Config, error)

// measures are the formats whose headers can be read; RECOMMENDED by XEP-0084
// §4.2.1.
var measures = map[string]measure{
	"image/png":  func(b []byte) (image.Config, error) { return png.DecodeConfig(bytes.NewReader(b)) },
	"image/jpeg": func(b []byte) (image.Config, error) { return jpeg.DecodeConfig(bytes.NewReader(b)) },
	"image/gif":  func(b []byte) (image.Config, error) { return gif.DecodeConfig(bytes.NewReader(b)) },
}

func at(account jid.JID, node string) pubsub.Address {
	return pubsub.Address{Service: account, Node: node}
}
