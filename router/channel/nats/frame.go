package nats

import (
	"encoding/base32"
	"encoding/binary"
	"errors"
	"strings"
	"unicode/utf8"
)

// wireVersion is the first byte of every frame.
const wireVersion = 1

var (
	errVersion = errors.New("a frame of an unknown version")
	errFrame   = errors.New("not a frame")
)

type kind byte

// The kinds of frames. Data and Ask go to the subject of a port, so that a
// question keeps its place behind the payloads it asks about; Ack goes back to
// the subject of acknowledgements.
const (
	kindData kind = iota + 1
	kindAsk       // what do you have?
	kindAck       // this much
)

// frame is what travels. After the version and the kind comes:
//
//	node      string   who has sent it
//	life      uvarint  the incarnation of that
//	to        uvarint  the incarnation it is meant for; the node is in the subject
//	Data      payload bytes, seq uvarint (last, because it is known last)
//	Ask       question and seq uvarint (what was sent before)
//	Ack       port string, handled, received, question and seq uvarint (the last two as in the question)
type frame struct {
	kind     kind
	node     []byte
	life     uint64
	to       uint64
	payload  []byte
	seq      uint64
	port     []byte
	handled  uint64 // everything up to this one
	received uint64 // likewise, but some of it waits for its handler
	question uint64 // what is asked, or answered; 0: nothing
}

// tail is the most that the numbers around a payload take.
const tail = 2 * binary.MaxVarintLen64

// head appends what the frames of one pipe have in common.
func (f *frame) head(dst []byte) []byte {
	dst = appendBytes(append(dst, wireVersion, byte(f.kind)), f.node)
	dst = binary.AppendUvarint(dst, f.life)
	return binary.AppendUvarint(dst, f.to)
}

func (f *frame) append(dst []byte) []byte {
	dst = f.head(dst)
	switch f.kind {
	case kindData:
		return binary.AppendUvarint(appendBytes(dst, f.payload), f.seq)
	case kindAsk:
		return binary.AppendUvarint(binary.AppendUvarint(dst, f.question), f.seq)
	}
	dst = appendBytes(dst, f.port)
	dst = binary.AppendUvarint(dst, f.handled)
	dst = binary.AppendUvarint(dst, f.received)
	return binary.AppendUvarint(binary.AppendUvarint(dst, f.question), f.seq)
}

func appendBytes(dst, p []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(p))), p...)
}

// parse reads what append wrote. The frame keeps references into b.
func parse(b []byte) (f frame, err error) {
	if len(b) == 0 {
		return f, errFrame
	}
	if b[0] != wireVersion {
		return f, errVersion
	}
	if len(b) < 2 {
		return f, errFrame
	}
	f.kind = kind(b[1])
	r := reader{b: b[2:]}
	f.node, f.life, f.to = r.bytes(), r.uint(), r.uint()
	switch f.kind {
	case kindData:
		f.payload, f.seq = r.bytes(), r.uint()
	case kindAsk:
		f.question, f.seq = r.uint(), r.uint()
	case kindAck:
		f.port, f.handled, f.received = r.bytes(), r.uint(), r.uint()
		f.question, f.seq = r.uint(), r.uint()
	default:
		return f, errFrame
	}
	if r.failed || len(r.b) > 0 || !isNode(string(f.node)) {
		return f, errFrame
	}
	return f, nil
}

// reader reads fields; after the first fault everything is zero.
type reader struct {
	b      []byte
	failed bool
}

func (r *reader) uint() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.failed, r.b = true, nil
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) bytes() []byte {
	n := r.uint()
	if n > uint64(len(r.b)) {
		r.failed, r.b = true, nil
		return nil
	}
	p := r.b[:n:n]
	r.b = r.b[n:]
	return p
}

// ackPort is the last token of the subject for acknowledgements.
const ackPort = "ack"

// subject of a port of a node. A node may have any name, a token may not.
func subject(cluster, node, port string) string {
	return cluster + "." + strings.ToLower(base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString([]byte(node))) + "." + port
}

// isNode reports whether s may name a node: it becomes a label of metrics, and
// a token of subjects that grows by three fifths.
func isNode(s string) bool { return s != "" && len(s) <= 255 && utf8.ValidString(s) }

// isToken reports whether s may be a cluster or a port.
func isToken(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
}
