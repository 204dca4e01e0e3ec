package upload

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"time"

	"parley/storage/blob"
)

// put takes a file (XEP-0363 §7). The slot is claimed before a byte is read, so
// that it is used once; what breaks off gives it back, for as long as it would have
// been good.
func (d *door) put(w http.ResponseWriter, r *http.Request) error {
	f, err := d.given(r)
	if err != nil {
		return err
	}
	if err := fits(f, r); err != nil {
		return err
	}
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	default:
		return &refusal{http.StatusServiceUnavailable, "too many uploads at the moment"}
	}
	p, now := d.pace(w, r), d.env.Clock.Now()
	claimed := now.Add(p.longest(f.Size) + commitLimit)
	ok, err := d.store.claim(r.Context(), f, now, claimed)
	if err != nil {
		return err
	}
	if !ok {
		return &refusal{http.StatusConflict, "the slot is used already"}
	}
	read := p.reading(r.Body)
	defer read.stop()
	body := &head{from: read}
	if err = d.take(r.Context(), f, claimed, body); err != nil {
		d.giveBack(r.Context(), f, claimed, err)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = &refusal{http.StatusRequestTimeout, "too slow"}
		}
		return err
	}
	d.m.bytes.WithLabelValues("in").Add(float64(f.Size))
	w.WriteHeader(http.StatusCreated) // XEP-0363 §7: it can be fetched now
	return nil
}

// commitLimit is how long what was received may take to be written down.
const commitLimit = time.Minute

// fits says why a request is not the one that its slot was given for.
func fits(f *File, r *http.Request) error {
	typ, ok := cleanType(r.Header.Get("Content-Type"))
	switch {
	case f.state != stateSlot:
		return &refusal{http.StatusConflict, "the slot is used already"}
	case r.ContentLength < 0:
		return &refusal{http.StatusLengthRequired, "say how long the content is"}
	case r.ContentLength > f.Size:
		return &refusal{http.StatusRequestEntityTooLarge, "the content is longer than the slot is for"}
	case r.ContentLength < f.Size:
		return &refusal{http.StatusBadRequest, "the content is shorter than the slot is for"}
	case r.Header.Get("Content-Encoding") != "":
		return &refusal{http.StatusUnsupportedMediaType, "content is taken as it is"}
	case !ok, f.Type != "" && typ != "" && typ != f.Type:
		return &refusal{http.StatusUnsupportedMediaType, "the slot is for another type"}
	}
	if f.Type == "" {
		f.Type = typ
	}
	return nil
}

// take streams the content into the store and says in the database that it is
// there: after that, and not before, it is.
func (d *door) take(ctx context.Context, f *File, claimed time.Time, body *head) error {
	c, err := d.write(ctx, f, body)
	if err != nil {
		return err
	}
	// From here on it is decided without the client, which may be gone.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitLimit)
	defer cancel()
	if err := d.scan(ctx, f, c); err != nil {
		d.drop(ctx, c.object)
		return err
	}
	f.Type, f.shown = judge(f.Type, body.first.Bytes())
	slot := f.ends
	f.ends = (&Bucket{Keep: f.keep}).ends(d.env.Clock.Now(), f.until)
	spare, err := d.store.stored(ctx, f, claimed, c)
	if err != nil {
		f.ends = slot
		d.drop(ctx, c.object)
		return err
	}
	if !spare.IsZero() {
		d.drop(ctx, spare)
	}
	return nil
}

// drop deletes what no row names; what is left behind the audit finds.
func (d *door) drop(ctx context.Context, k blob.Key) {
	if err := d.env.Files.Delete(ctx, k); err != nil {
		d.env.Log.Warn("a file that nobody needs is left for the audit", "object", k.String(), "err", err)
	}
}

// giveBack lets a slot be used again when nothing came of it; one whose content is
// not wanted is used up.
func (d *door) giveBack(ctx context.Context, f *File, claimed time.Time, cause error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitLimit)
	defer cancel()
	var err error
	if errors.Is(cause, ErrUnwanted) {
		_, err = d.store.remove(ctx, f.Owner, f.ID)
	} else {
		err = d.store.release(ctx, f, claimed)
	}
	if err != nil {
		d.env.Log.Warn("a slot stays taken until it expires", "err", err)
	}
}

// headBytes are looked at to see what content is.
const headBytes = 512

// head remembers the first bytes that are read.
type head struct {
	from  io.Reader
	first bytes.Buffer
}

func (h *head) Read(p []byte) (int, error) {
	n, err := h.from.Read(p)
	if more := headBytes - h.first.Len(); more > 0 {
		h.first.Write(p[:min(n, more)])
	}
	return n, err
}
