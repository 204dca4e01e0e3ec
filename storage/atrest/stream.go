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
// not, each with its tag. Every file has a key of its own, a FileKey; a chunk's
// nonce is its number and whether it is the last, so none can be left out, moved,
// added or taken from another file. The additional data is what the file is: its
// feature and name.
const (
	saltSize  = 32
	chunkSize = 64 << 10
	lastChunk = 1 // the nonce's last byte
)

// FileKey is the key of one file, drawn at random. It is kept in the file's row,
// sealed as a row's content is: keys of the ring come and go without any file
// being written again, and a file whose row is gone cannot be read.
type FileKey []byte

// NewFileKey draws one.
func NewFileKey() FileKey {
	k := make(FileKey, keySize)
	_, _ = rand.Read(k) // never fails (crypto/rand)
	return k
}

// SealedSize is how many bytes a file of size is when it is sealed.
func SealedSize(size int64) int64 {
	return saltSize + size + tagSize*max(1, (size+chunkSize-1)/chunkSize)
}

func (k FileKey) file(salt []byte) cipher.AEAD {
	secret, err := hkdf.Key(sha256.New, k, salt, "parley file", keySize)
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

// Seal returns a Writer; name is what the file is ("upload", its id).
func (k FileKey) Seal(to io.Writer, name string) (*Writer, error) {
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt) // never fails (crypto/rand)
	if _, err := to.Write(salt); err != nil {
		return nil, fmt.Errorf("seal %s: %w", name, err)
	}
	return &Writer{to: to, chunks: chunks{aead: k.file(salt), name: []byte(name)}, plain: make([]byte, 0, chunkSize)}, nil
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

// Open reads a file that was sealed under the name.
func (k FileKey) Open(from io.Reader, name string) (*Reader, error) {
	return k.OpenAt(func(int64) (io.Reader, error) { return from, nil }, 0, name)
}

// OpenAt is Open for what comes from the offset on; read gives the sealed file
// from a place on, and is called once for the beginning and, unless it begins
// there, once for the rest. An offset beyond the end is ErrDamaged.
func (k FileKey) OpenAt(read func(at int64) (io.Reader, error), offset int64, name string) (*Reader, error) {
	from, err := read(0)
	if err != nil {
		return nil, err
	}
	var salt [saltSize]byte
	if _, err := io.ReadFull(from, salt[:]); err != nil {
		return nil, fmt.Errorf("open %s: %w", name, cutShort(err))
	}
	n := offset / chunkSize
	if n > 0 {
		if from, err = read(saltSize + n*(chunkSize+tagSize)); err != nil {
			return nil, err
		}
	}
	r := &Reader{from: bufio.NewReaderSize(from, chunkSize+tagSize+1), chunks: chunks{aead: k.file(salt[:]), name: []byte(name), n: uint64(n)}} //nolint:gosec // not negative
	if skip := offset - n*chunkSize; skip > 0 {
		if _, err := io.CopyN(io.Discard, r, skip); err != nil {
			return nil, fmt.Errorf("open %s: %w", name, cutShort(err))
		}
	}
	return r, nil
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
