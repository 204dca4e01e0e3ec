package nats

import (
	"encoding/binary"
	"errors"
)

// wireVersion is the newest form of frames that is read here. The first byte of a
// frame is the oldest version whose readers understand it, and what they do not
// know at its end they skip. Whoever writes a newer form waits for a release that
// reads it everywhere: a frame that is ignored comes again until it is not, so its
// pipe stands still meanwhile (payloads have a rule of their own,
// channel.WireVersion).
const wireVersion = 1

var (
	errVersion = errors.New("a frame of a newer version than this node reads")
	errFrame   = errors.New("not a frame")
	errSpeaker = errors.New("a frame that says to come from another node than its subject does")
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
//	node      string   who has sent it, as in the subject
//	life      uvarint  the incarnation of that
//	to        uvarint  the incarnation it is meant for; the node is in the subject
//	Data      payload bytes, seq uvarint (last, because it is known last)
//	Ask       question and seq uvarint (what was sent before)
//	Ack       port string, handled, received, question and seq uvarint (the last two as in the question),
//	          and if there are any, refused: how many, and each as its distance to the one before
type frame struct {
	kind     kind
	node     []byte
	life     uint64
	to       uint64
	payload  []byte
	seq      uint64
	port     []byte
	handled  uint64   // everything up to this one
	received uint64   // likewise, but some of it waits for its handler
	question uint64   // what is asked, or answered; 0: nothing
	refused  []uint64 // of those that are handled, every one the sender may not know of yet
}

// maxWindow bounds Window.Frames, so that the far end knows what the near end
// knows: of a payload so far behind the last one it has seen the acknowledgement.
const maxWindow = 4096

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
	dst = binary.AppendUvarint(binary.AppendUvarint(dst, f.question), f.seq)
	if len(f.refused) == 0 {
		return dst
	}
	dst = binary.AppendUvarint(dst, uint64(len(f.refused)))
	before := uint64(0)
	for _, n := range f.refused {
		dst = binary.AppendUvarint(dst, n-before)
		before = n
	}
	return dst
}

func appendBytes(dst, p []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(p))), p...)
}

// parse reads what append wrote. The frame keeps references into b.
func parse(b []byte) (f frame, err error) {
	switch {
	case len(b) < 2 || b[0] == 0:
		return f, errFrame
	case b[0] > wireVersion:
		return f, errVersion
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
		f.refused = r.numbers()
	default:
		return f, errFrame
	}
	if r.failed || !isNode(string(f.node)) {
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

// numbers are at the end, or not there.
func (r *reader) numbers() (all []uint64) {
	if len(r.b) == 0 {
		return nil
	}
	count, last := r.uint(), uint64(0)
	if count > maxWindow {
		r.failed = true
		return nil
	}
	for range count {
		last += r.uint()
		all = append(all, last)
	}
	return all
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
