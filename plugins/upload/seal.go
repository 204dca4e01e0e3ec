package upload

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"

	"parley/storage/atrest"
	"parley/storage/blob"
)

// write streams content into the store: encrypted, when what people write is. What
// it is afterwards has a row to come.
func (f *Files) write(ctx context.Context, file *File, body io.Reader) (*content, error) {
	c := &content{id: randomID(), object: blob.NewKey(), size: file.Size}
	if f.env.AtRest.On() {
		c.key = atrest.NewFileKey()
	}
	sum, err := f.writeTo(ctx, c, body)
	if err != nil {
		return nil, err
	}
	if c.hash, err = f.hash(ctx, sum); err != nil {
		return nil, err
	}
	return c, nil
}

func (f *Files) writeTo(ctx context.Context, c *content, body io.Reader) (blob.Sum, error) {
	if c.key == nil {
		return f.env.Files.Put(ctx, c.object, body, c.size)
	}
	m := blob.NewMeasure(body, c.size)
	from, to := io.Pipe()
	sealed := make(chan struct{})
	go func() {
		defer close(sealed)
		_ = to.CloseWithError(sealTo(to, c, m)) // never fails (io.PipeWriter)
	}()
	_, err := f.env.Files.Put(ctx, c.object, from, atrest.SealedSize(c.size))
	_ = from.CloseWithError(io.ErrClosedPipe) // never fails (io.PipeReader); lets the sealing end
	<-sealed
	sum, whole := m.Sum()
	if err == nil && !whole {
		err = blob.ErrSize
	}
	return sum, err
}

func sealTo(to io.Writer, c *content, from io.Reader) error {
	w, err := c.key.Seal(to, c.name())
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, from); err != nil {
		return err
	}
	return w.Close()
}

// name is what encrypted content is bound to.
func (c *content) name() string { return Name + "/" + c.object.String() }

func randomID() int64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return int64(binary.BigEndian.Uint64(b[:]) >> 1)
}

// open reads content from an offset on.
func (f *Files) open(ctx context.Context, c *content, offset int64) (io.ReadCloser, error) {
	if c.key == nil {
		return f.env.Files.Get(ctx, c.object, offset)
	}
	o := &opened{}
	r, err := c.key.OpenAt(func(at int64) (io.Reader, error) {
		_ = o.Close() // the beginning, of which it has what it wants
		var err error
		o.from, err = f.env.Files.Get(ctx, c.object, at)
		return o.from, err
	}, offset, c.name())
	if err != nil {
		_ = o.Close()
		return nil, err
	}
	o.Reader = r
	return o, nil
}

// opened is content that is decrypted as it is read.
type opened struct {
	io.Reader
	from io.ReadCloser
}

// Close implements io.Closer.
func (o *opened) Close() error {
	if o.from == nil {
		return nil
	}
	from := o.from
	o.from = nil
	return from.Close()
}

// reader is content for http.ServeContent: it is opened where it is first read.
type reader struct {
	ctx   context.Context
	files *Files
	c     *content
	at    int64
	open  io.ReadCloser // nil: not yet
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (n int, err error) {
	if r.at >= r.c.size {
		return 0, io.EOF
	}
	if r.open == nil {
		if r.open, err = r.files.open(r.ctx, r.c, r.at); err != nil {
			return 0, err
		}
	}
	n, err = r.open.Read(p)
	r.at += int64(n)
	return n, err
}

// Seek implements io.Seeker.
func (r *reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.at
	case io.SeekEnd:
		offset += r.c.size
	}
	if offset < 0 {
		return r.at, fmt.Errorf("seek to %d: %w", offset, blob.ErrSize)
	}
	if offset != r.at {
		_ = r.Close()
		r.at = offset
	}
	return r.at, nil
}

// Close implements io.Closer.
func (r *reader) Close() error {
	if r.open == nil {
		return nil
	}
	open := r.open
	r.open = nil
	return open.Close()
}
