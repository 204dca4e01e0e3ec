package upload

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
)

// ErrUnwanted is what a Scanner's error wraps when a file is not to be kept.
var ErrUnwanted = errors.New("the file is not wanted")

// Scanner looks at each file that was uploaded before anybody can fetch it: for
// viruses, for what is forbidden. An error that wraps ErrUnwanted lets the file go
// and uses up its slot; with any other one the client may try again. It is called
// for several files at the same time and has a minute; content that clients have
// encrypted looks like noise.
type Scanner interface {
	Scan(ctx context.Context, f File, content io.Reader) error
}

// scanners are those that look, in the order of their coming.
type scanners struct {
	mu  sync.Mutex
	all []*Scanner
}

// AddScanner lets s look at files until remove is called. A feature calls it in
// its Start, and remove in its Stop.
func (x *scanners) AddScanner(s Scanner) (remove func()) {
	x.mu.Lock()
	defer x.mu.Unlock()
	own := &s
	x.all = append(slices.Clip(x.all), own)
	return func() {
		x.mu.Lock()
		defer x.mu.Unlock()
		x.all = slices.DeleteFunc(slices.Clone(x.all), func(p *Scanner) bool { return p == own })
	}
}

func (x *scanners) now() []*Scanner {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.all
}

// scan lets everybody look who wants to.
func (f *Files) scan(ctx context.Context, file *File, c *content) error {
	for _, s := range f.now() {
		r, err := f.open(ctx, c, 0)
		if err != nil {
			return err
		}
		err = (*s).Scan(ctx, *file, r)
		_ = r.Close()
		if err != nil {
			return fmt.Errorf("scan: %w", err)
		}
	}
	return nil
}
