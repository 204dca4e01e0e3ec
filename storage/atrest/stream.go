package atrest

import (
	"bufio"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A sealed file is a random salt and chunks of 64 KiB, the last one shorter or
// not, each with its tag. Every file has a key of its own, derived from the
// ring's with the salt; a chunk's nonce is its number and whether it is the
// last, so none can be left out, moved, added or taken from another file. The
// additional data is what the file is: its feature and name.
const (
	saltSize  = 32
	chunkSize = 64 << 10
	lastChunk = 1 // the nonce's last byte
)

func (k *key) file(salt []byte) cipher.AEAD {
	secret, err := hkdf.Key(sha256.New, k.files, salt, "parley file", keySize)
	if err != nil { // a length that cannot be
		panic(err)
	}
	return newGCM(newAES(secret))
}

// chunks counts a file's chunks and makes their nonces.
type chunks struct {
	aead  cipher.AEAD
	name  []byte
	n     uint64
	nonce [gcmNonce]byte
}

func (c *chunks) next(last bool) []byte {
	binary.BigEndian.PutUint64(c.nonce[3:11], c.n)
	c.nonce[11] = 0
	if last {
		c.nonce[11] = lastChunk
	}
	c.n++
	return c.nonce[:]
}

// Writer seals what is written to it. The file is whole once Close returned nil.
type Writer struct {
	to     io.Writer
	chunks chunks
	plain  []byte // of the chunk being filled
	sealed []byte
	err    error
}

// SealFile returns a Writer and the id of the key, which the caller keeps with
// the file; name is what the file is ("upload", its id). While the Vault is off
// there is none: the file is written as it is.
func (v *Vault) SealFile(to io.Writer, name string) (w *Writer, id int64, err error) {
	k := v.load().current()
	if k == nil {
		return nil, 0, nil
	}
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt) // never fails (crypto/rand)
	if _, err := to.Write(salt); err != nil {
		return nil, 0, fmt.Errorf("seal %s: %w", name, err)
	}
	return &Writer{to: to, chunks: chunks{aead: k.file(salt), name: []byte(name)}, plain: make([]byte, 0, chunkSize)}, k.id, nil
}

// Write implements io.Writer. A full chunk is held until more comes: it may be
// the last.
func (w *Writer) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		if w.err != nil {
			return n, w.err
		}
		if len(w.plain) == chunkSize {
			w.flush(false)
			continue
		}
		m := min(len(p), chunkSize-len(w.plain))
		w.plain = append(w.plain, p[:m]...)
		p, n = p[m:], n+m
	}
	return n, nil
}

func (w *Writer) flush(last bool) {
	w.sealed = w.chunks.aead.Seal(w.sealed[:0], w.chunks.next(last), w.plain, w.chunks.name)
	w.plain = w.plain[:0]
	if _, err := w.to.Write(w.sealed); err != nil {
		w.err = fmt.Errorf("seal %s: %w", w.chunks.name, err)
	}
}

var errWritten = errors.New("sealed file is closed")

// Close writes the last chunk. It does not close what is below.
func (w *Writer) Close() error {
	if w.err != nil {
		return w.err
	}
	if w.flush(true); w.err != nil {
		return w.err
	}
	w.err = errWritten
	return nil
}

// Reader opens what a Writer sealed. What it returned before an error is right,
// and not all; errors wrap ErrDamaged.
type Reader struct {
	from   *bufio.Reader
	chunks chunks
	sealed [chunkSize + tagSize]byte
	plain  []byte // not read yet
	err    error
}

// OpenFile reads a file that was sealed with the key id under the name.
func (v *Vault) OpenFile(from io.Reader, id int64, name string) (*Reader, error) {
	k := v.load().find(id)
	if k == nil {
		return nil, fmt.Errorf("open %s: %w: key %d", name, ErrNoKey, id)
	}
	var salt [saltSize]byte
	if _, err := io.ReadFull(from, salt[:]); err != nil {
		return nil, fmt.Errorf("open %s: %w", name, cutShort(err))
	}
	return &Reader{from: bufio.NewReaderSize(from, chunkSize+tagSize+1), chunks: chunks{aead: k.file(salt[:]), name: []byte(name)}}, nil
}

// cutShort says what an end in the wrong place is.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: cut short", ErrDamaged)
	}
	return err
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	for len(r.plain) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.fill()
	}
	n := copy(p, r.plain)
	r.plain = r.plain[n:]
	return n, nil
}

// fill opens the next chunk; the last is what nothing comes after.
func (r *Reader) fill() {
	n, err := io.ReadFull(r.from, r.sealed[:])
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		r.err = fmt.Errorf("open %s: %w", r.chunks.name, cutShort(err))
		return
	}
	_, more := r.from.Peek(1)
	last := errors.Is(more, io.EOF)
	first := r.chunks.n == 0
	plain, err := r.chunks.aead.Open(r.sealed[:0], r.chunks.next(last), r.sealed[:n], r.chunks.name)
	switch {
	case err != nil, len(plain) == 0 && !first: // only an empty file has an empty chunk
		r.err = fmt.Errorf("open %s: %w", r.chunks.name, ErrDamaged)
	case last:
		r.plain, r.err = plain, io.EOF
	case more != nil:
		r.err = fmt.Errorf("open %s: %w", r.chunks.name, more)
	default:
		r.plain = plain
	}
}
