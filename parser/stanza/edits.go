package stanza

import (
	"bytes"
	"cmp"
	"slices"

	"parley/parser/jid"
)

// Edits is how a stanza goes out: what to write instead of, leave out of and add to the bytes that arrived, which stay
// shared. Nothing in it may be changed once others may read it. The zero value lets Raw go out as it is.
type Edits struct {
	Head   []byte // a complete start tag, to be written before Inner; empty: all of Raw is written, and Append and Tail are not
	Inner  Span   // what of Raw comes between Head and Append
	Cut    []Span // what of Raw is left out; in any order, may overlap
	Append []byte // elements in the namespace of the stanza, to be written behind Inner
	Tail   string // the end tag
}

// Stamp returns edits that give s a fresh start tag from its fields, in this order: to, from, id, type, xml:lang, then the
// attributes and prefix declarations it came with. It never names the content namespace: the stanza is at home in any stream
// (RFC 6120 §4.8.5). The caller may set Cut (by append) and Append.
func (s *Stanza) Stamp() Edits { return s.stamp("") }

// StampForwarded is Stamp for a stanza inside of another element, as in XEP-0297 §3.2, or in a WebSocket message (RFC 7395
// §3.3.3): the start tag declares NSClient.
func (s *Stanza) StampForwarded() Edits { return s.stamp(NSClient) }

func (s *Stanza) stamp(declare string) Edits {
	return Edits{
		Head:  s.appendHead(make([]byte, 0, 64+len(s.To.String())+len(s.From.String())+len(s.ID)+len(s.Type)+len(declare)), declare),
		Inner: s.inner,
		Cut:   slices.Clip(s.redundant), // RFC 6120 §4.8.5: or else they would name the content namespace of another stream
		Tail:  s.tail(),
	}
}

// AppendShared appends s as Stamp lets it go out, but for to=, which is left out: see AppendTo.
func (s *Stanza) AppendShared(dst []byte) []byte {
	own := *s
	own.To = jid.JID{}
	e := Edits{Cut: s.redundant}
	dst = own.appendHead(slices.Grow(dst, len(s.Raw)+64), "")
	start := len(dst)
	return closeTag(e.appendRaw(dst, s.Raw, s.inner), start, s.tail())
}

// appendHead writes the start tag.
func (s *Stanza) appendHead(dst []byte, declare string) []byte {
	dst = append(dst, '<')
	dst = append(dst, s.Kind.String()...)
	for _, a := range [...]struct{ name, value string }{
		{"xmlns", declare}, {"to", s.To.String()}, {"from", s.From.String()}, {"id", s.ID}, {"type", s.Type}, {"xml:lang", s.Lang},
	} {
		if a.value != "" {
			dst = appendAttr(dst, a.name, a.value)
		}
	}
	for _, x := range s.extra {
		dst = append(dst, s.Raw[x.Start:x.End]...)
	}
	return append(dst, '>')
}

func (s *Stanza) tail() string { return kindTails[s.Kind&3] }

var kindTails = [4]string{"", "</message>", "</presence>", "</iq>"}

// Render appends raw as edited to dst.
func (e *Edits) Render(dst, raw []byte) []byte {
	if len(e.Head) == 0 {
		return e.appendRaw(dst, raw, Span{0, len(raw)})
	}
	dst = slices.Grow(dst, len(e.Head)+e.Inner.End-e.Inner.Start+len(e.Append)+len(e.Tail))
	dst = append(dst, e.Head...)
	start := len(dst)
	dst = e.appendRaw(dst, raw, e.Inner)
	dst = append(dst, e.Append...)
	return closeTag(dst, start, e.Tail)
}

// NameEnd is the place in a rendered element where a further attribute goes first: behind the name of its start tag.
func NameEnd(rendered []byte) int { return max(bytes.IndexAny(rendered, " />"), 0) }

// AppendTo appends the attribute to=, with the blank before it; nothing for the zero address.
func AppendTo(dst []byte, to jid.JID) []byte {
	if to.IsZero() {
		return dst
	}
	return appendAttr(dst, "to", to.String())
}

// ChildBytes returns a child as it goes out in any stream (Stamp): without declarations of the content namespace. It may be
// part of Raw.
func (s *Stanza) ChildBytes(c Child) []byte {
	inside := func(cut Span) bool { return c.Span.Start <= cut.Start && cut.End <= c.Span.End }
	if !slices.ContainsFunc(s.redundant, inside) {
		return s.Raw[c.Span.Start:c.Span.End]
	}
	e := Edits{Cut: s.redundant}
	return e.appendRaw(nil, s.Raw, c.Span)
}

// appendRaw copies what of a part of raw is not cut.
func (e *Edits) appendRaw(dst, raw []byte, part Span) []byte {
	cuts := e.Cut
	byStart := func(a, b Span) int { return cmp.Compare(a.Start, b.Start) }
	if !slices.IsSortedFunc(cuts, byStart) {
		cuts = slices.SortedFunc(slices.Values(cuts), byStart)
	}
	at := part.Start
	for _, c := range cuts {
		if c.End <= at {
			continue
		}
		if c.Start >= part.End {
			break
		}
		dst = append(dst, raw[at:max(at, c.Start)]...)
		at = min(c.End, part.End)
	}
	return append(dst, raw[at:part.End]...)
}

// closeTag ends an element whose content begins at start; an empty one becomes an empty-element tag.
func closeTag(dst []byte, start int, tail string) []byte {
	if len(dst) == start && start > 0 && dst[start-1] == '>' {
		return append(dst[:start-1], '/', '>')
	}
	return append(dst, tail...)
}
