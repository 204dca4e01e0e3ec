package blob

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
)

// Measure lets exactly size bytes of a reader through and sums them up. A reader
// that has fewer or more fails with ErrSize instead of its end, so that whoever
// reads never takes a part for the whole.
type Measure struct {
	from io.Reader
	left int64
	sum  hash.Hash
	err  error
}

// NewMeasure measures r.
func NewMeasure(r io.Reader, size int64) *Measure {
	return &Measure{from: r, left: size, sum: sha256.New()}
}

// Read implements io.Reader.
func (m *Measure) Read(p []byte) (int, error) {
	if m.err != nil {
		return 0, m.err
	}
	if m.left == 0 {
		m.err = m.end()
		return 0, m.err
	}
	if int64(len(p)) > m.left {
		p = p[:m.left]
	}
	n, err := m.from.Read(p)
	m.left -= int64(n)
	m.sum.Write(p[:n])
	switch {
	case err == nil:
		return n, nil
	case !errors.Is(err, io.EOF):
		m.err = err
	case m.left > 0:
		m.err = fmt.Errorf("%w: %d bytes are missing", ErrSize, m.left)
	default:
		m.err = io.EOF
	}
	return n, m.err
}

// end is what comes when all was read: nothing more may.
func (m *Measure) end() error {
	var one [1]byte
	switch n, err := io.ReadFull(m.from, one[:]); {
	case n > 0:
		return fmt.Errorf("%w: there is more", ErrSize)
	case errors.Is(err, io.EOF):
		return io.EOF
	default:
		return err
	}
}

// Sum is that of what was read; false: that is not all of it, or not yet known to
// be.
func (m *Measure) Sum() (s Sum, whole bool) {
	m.sum.Sum(s[:0])
	return s, errors.Is(m.err, io.EOF)
}
