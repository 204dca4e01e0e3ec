package stream

import (
	"crypto/rand"

	"parley/parser/stanza"
)

// Open sends our stream header (RFC 6120 §4.7) with a new id.
func (c *Conn) Open(from string) {
	c.voice.Lock()
	defer c.voice.Unlock()
	if !c.closing.Load() {
		c.open(from)
	}
}

// open is Open with c.voice held.
func (c *Conn) open(from string) {
	c.id = rand.Text() // RFC 6120 §4.7.3: unpredictable, new after each restart
	attrs := stanza.El("", "x").With("id", c.id).With("xml:lang", streamLang).WithOpt("from", from)
	if !c.claimed.IsZero() { // RFC 6120 §4.7.2
		attrs.With("to", c.claimed.Bare().String())
	}
	c.openWith(attrs)
}

// openWith queues a header with these attributes; c.voice is held.
func (c *Conn) openWith(attrs *stanza.Element) {
	if c.profile.ContentNS() != stanza.NSComponent { // XEP-0114 §3: it is older than versions, and features
		attrs.With("version", "1.0")
	}
	var b []byte
	if c.tr.Framed() {
		el := stanza.El(stanza.NSFraming, "open")
		el.Attrs = attrs.Attrs
		b = el.Append(b, "")
	} else {
		b = append(b, "<?xml version='1.0'?><stream:stream xmlns='"+c.profile.ContentNS()+"' xmlns:stream='"+stanza.NSStream+"'"...)
		if d, ok := c.profile.(Declarer); ok {
			b = append(b, " xmlns:"+d.Declares().Prefix+"='"+d.Declares().URI+"'"...)
		}
		b = appendAttrs(b, attrs)
		b = append(b, '>')
	}
	c.opened = true
	c.tr.Queue(b)
}

// appendAttrs renders el's attributes, each behind a space.
func appendAttrs(b []byte, el *stanza.Element) []byte {
	raw := el.Bytes("")
	return append(b, raw[len("<x"):len(raw)-len("/>")]...)
}

// Send queues one first-level element, unless our end is closed (RFC 6120 §4.4).
func (c *Conn) Send(el *stanza.Element) {
	c.voice.Lock()
	defer c.voice.Unlock()
	if c.closing.Load() {
		return
	}
	if el.Name.Space == stanza.NSStream {
		c.tr.Queue(c.streamElement(el))
		return
	}
	c.tr.Queue(el.Bytes(c.parentNS()))
}

func (c *Conn) parentNS() string {
	if c.tr.Framed() {
		return ""
	}
	return c.profile.ContentNS()
}

// usualFeatures is about how long features are, in bytes.
const usualFeatures = 1 << 10

// streamElement renders <stream:features/> and <stream:error/> with their
// customary prefix, which clients expect.
func (c *Conn) streamElement(el *stanza.Element) []byte {
	b := append(make([]byte, 0, usualFeatures), "<stream:"+el.Name.Local...)
	if c.tr.Framed() {
		b = append(b, " xmlns:stream='"+stanza.NSStream+"'"...)
	}
	b = append(b, '>')
	for child := range el.Elements() {
		b = child.Append(b, c.parentNS())
	}
	return append(b, "</stream:"+el.Name.Local+">"...)
}

// splicer is a Transport that copies what it queues.
type splicer interface {
	// QueueSpliced is Queue of p with attr at a place in it.
	QueueSpliced(p []byte, at int, attr string)
}

var _ splicer = (*tcp)(nil)

// sendStanza queues a rendered stanza; attr, with a blank before it, is put into
// its start tag.
func (c *Conn) sendStanza(rendered []byte, attr string) {
	if c.closing.Load() { // RFC 6120 §4.4: nothing after our </stream:stream>
		return
	}
	if c.tr.Framed() { // RFC 7395 §3.3.3: each message declares its namespace
		attr = " xmlns='" + c.profile.ContentNS() + "'" + attr
	}
	if attr == "" {
		c.tr.Queue(rendered)
		return
	}
	at := stanza.NameEnd(rendered)
	if t, ok := c.tr.(splicer); ok {
		t.QueueSpliced(rendered, at, attr)
		return
	}
	c.tr.Queue(spliced(make([]byte, 0, len(rendered)+len(attr)), rendered, at, attr))
}
