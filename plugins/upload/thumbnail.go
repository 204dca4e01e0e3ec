package upload

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"parley/plugins/upload/picture"
	"parley/storage/blob"
)

// thumbnailKey is the parameter that asks for a small picture of a large one.
const thumbnailKey = "thumbnail"

// thumbnailName is the Variant that keeps it. An empty one says that there is none:
// nobody tries again.
const thumbnailName = "t"

// A picture is decoded when somebody first asks, one at a time: it takes memory,
// and the processor, for as long.
const (
	shrinkWaiting = 16 // requests that wait for it
	shrinkLimit   = 20 * time.Second
	maxThumbnail  = 2 << 20 // bytes
)

// shrinking are the places of those who wait, and of the one at work.
type shrinking struct{ waiting, working chan struct{} }

func newShrinking() shrinking {
	return shrinking{make(chan struct{}, shrinkWaiting), make(chan struct{}, 1)}
}

// enter waits for a place to work; leave gives it back.
func (s *shrinking) enter(ctx context.Context) (leave func(), err error) {
	busy := &refusal{http.StatusServiceUnavailable, "too many pictures at the moment"}
	select {
	case s.waiting <- struct{}{}:
	default:
		return nil, busy
	}
	defer func() { <-s.waiting }()
	ctx, cancel := context.WithTimeout(ctx, shrinkLimit)
	defer cancel()
	select {
	case s.working <- struct{}{}:
		return func() { <-s.working }, nil
	case <-ctx.Done():
		return nil, busy
	}
}

// thumbnail is a small picture of a file that is one; without what cameras note of
// places and times, and the right way up.
func (d *door) thumbnail(ctx context.Context, f *File, c *content) ([]byte, error) {
	none := &refusal{http.StatusNotFound, "there is no smaller picture of this file"}
	if !f.shown || !picture.Known(f.Type) {
		return nil, none
	}
	small := &content{object: c.object.Variant(thumbnailName), key: c.key}
	kept, err := d.readSmall(ctx, small)
	switch {
	case err == nil && len(kept) == 0:
		return nil, none
	case err == nil, !errors.Is(err, blob.ErrNotFound):
		return kept, err
	}
	leave, err := d.shrink.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	from, err := d.open(ctx, c, 0)
	if err != nil {
		return nil, err
	}
	made, err := picture.Thumbnail(from)
	_ = from.Close()
	if err != nil && !errors.Is(err, picture.ErrNone) {
		return nil, err
	}
	small.size = int64(len(made))
	if _, err := d.writeTo(ctx, small, bytes.NewReader(made)); err != nil { // another one may have made it
		d.env.Log.Debug("thumbnail not kept", "err", err)
	}
	if len(made) == 0 {
		return nil, none
	}
	return made, nil
}

func (d *door) readSmall(ctx context.Context, c *content) ([]byte, error) {
	r, err := d.open(ctx, c, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	return io.ReadAll(io.LimitReader(r, maxThumbnail))
}
