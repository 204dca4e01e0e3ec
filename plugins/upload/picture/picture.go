// Package picture makes small pictures of large ones, of bytes that nobody trusts.
//
// How large a picture is, its header says, and that is read and judged before
// anything of it is decoded: a few kilobytes can be a picture of gigabytes. What
// comes out has been drawn anew, so nothing else of the file is in it: no place, no
// time, no camera, no comment, nothing behind its end. It is the right way up
// (Exif 2.32 §4.6.4, tag 0x0112).
package picture

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"

	"golang.org/x/image/webp"
)

// ErrNone: there can be no small picture of this one; it is none, is broken, or too
// large.
var ErrNone = errors.New("no smaller picture")

// Bounds.
const (
	// MaxPixels is the largest picture that is decoded; one whose pixels take twice
	// the memory may have half of them.
	MaxPixels = 25_000_000
	// Edge is the longest edge of what is made, in pixels.
	Edge = 512
	// headBytes are looked at to see how large a picture is.
	headBytes = 1 << 20
)

const quality = 80 // of JPEG

// format is a kind of picture.
type format struct {
	config func(io.Reader) (image.Config, error)
	decode func(io.Reader) (image.Image, error)
	// measure is what config does not say: a size that the decoder may use as well,
	// and how many times the usual memory a pixel takes.
	measure func(head []byte, c image.Config) (width, height, weight int)
}

// formats are the kinds that can be read, by their media types.
var formats = map[string]format{
	"image/jpeg": {jpeg.DecodeConfig, jpeg.Decode, measureJPEG},
	"image/png":  {png.DecodeConfig, png.Decode, measurePNG},
	"image/gif":  {gif.DecodeConfig, gif.Decode, nil}, // its first picture
	"image/webp": {webp.DecodeConfig, webp.Decode, measureWebP},
}

// Known reports whether pictures of a media type can be read.
func Known(typ string) bool { _, ok := formats[typ]; return ok }

// Info is what a picture's header says.
type Info struct {
	Type          string
	Width, Height int // the right way up
	orientation   int
	format        format
}

// Measure reads a picture's header, the first megabyte at most. Errors wrap
// ErrNone, or are the reader's.
func Measure(r io.Reader) (Info, error) {
	info, _, err := measure(r)
	return info, err
}

// Small is the size of the thumbnail; false: there is none.
func (i Info) Small() (width, height int, ok bool) {
	width, height = fit(i.Width, i.Height)
	return width, height, i.format.decode != nil
}

func measure(r io.Reader) (Info, []byte, error) {
	head := make([]byte, headBytes)
	n, err := io.ReadFull(r, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return Info{}, nil, err
	}
	head = head[:n]
	typ := kind(head)
	f, ok := formats[typ]
	if !ok {
		return Info{}, nil, fmt.Errorf("%w: unknown format", ErrNone)
	}
	c, err := f.config(bytes.NewReader(head))
	if err != nil {
		return Info{}, nil, fmt.Errorf("%w: %w", ErrNone, err)
	}
	w, h, weight := c.Width, c.Height, 1
	if f.measure != nil {
		var w2, h2 int
		w2, h2, weight = f.measure(head, c)
		w, h = max(w, w2), max(h, h2)
	}
	if w <= 0 || h <= 0 {
		return Info{}, nil, fmt.Errorf("%w: it is empty", ErrNone)
	}
	info := Info{Type: typ, Width: c.Width, Height: c.Height, orientation: 1, format: f}
	if typ == "image/jpeg" {
		info.orientation = orientation(head)
	}
	if info.orientation > 4 {
		info.Width, info.Height = info.Height, info.Width
	}
	if int64(w)*int64(h)*int64(weight) > MaxPixels {
		info.format = format{}
	}
	return info, head, nil
}

// kind is a picture's media type by its first bytes.
func kind(b []byte) string {
	switch {
	case bytes.HasPrefix(b, []byte("\xff\xd8\xff")):
		return "image/jpeg"
	case bytes.HasPrefix(b, []byte("\x89PNG\r\n\x1a\n")):
		return "image/png"
	case bytes.HasPrefix(b, []byte("GIF8")):
		return "image/gif"
	case len(b) > 12 && string(b[:4]) == "RIFF" && string(b[8:12]) == "WEBP":
		return "image/webp"
	}
	return ""
}

// Thumbnail makes a small picture: JPEG, or PNG when one sees through it. Errors
// wrap ErrNone, or are the reader's.
func Thumbnail(r io.Reader) (out []byte, err error) {
	watch := &watched{from: r}
	info, head, err := measure(watch)
	if err != nil {
		return nil, err
	}
	w, h, ok := info.Small()
	if !ok {
		return nil, fmt.Errorf("%w: %d × %d pixels are too many", ErrNone, info.Width, info.Height)
	}
	defer func() { // decoders are not ours
		if p := recover(); p != nil {
			out, err = nil, fmt.Errorf("%w: %v", ErrNone, p)
		}
	}()
	src, err := info.format.decode(io.MultiReader(bytes.NewReader(head), watch))
	switch {
	case watch.err != nil:
		return nil, watch.err
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrNone, err)
	}
	if info.orientation > 4 {
		w, h = h, w
	}
	small, opaque := shrink(src, w, h)
	small = upright(small, info.orientation)
	var b bytes.Buffer
	if opaque {
		err = jpeg.Encode(&b, small, &jpeg.Options{Quality: quality})
	} else {
		err = png.Encode(&b, small)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNone, err)
	}
	return b.Bytes(), nil
}

// watched tells errors of the reader from those of the picture.
type watched struct {
	from io.Reader
	err  error
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.from.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
	return n, err
}

// fit is the size of a picture of that shape whose longest edge is Edge; what is
// smaller stays as it is.
func fit(width, height int) (int, int) {
	if width <= Edge && height <= Edge {
		return width, height
	}
	if width >= height {
		return Edge, max(1, height*Edge/width)
	}
	return max(1, width*Edge/height), Edge
}

// shrink averages the pixels that become one.
func shrink(src image.Image, w, h int) (out *image.NRGBA, opaque bool) {
	b := src.Bounds()
	w, h = min(w, b.Dx()), min(h, b.Dy())
	out, opaque = image.NewNRGBA(image.Rect(0, 0, w, h)), true
	at := pixels(src)
	for y := range h {
		y0, y1 := b.Min.Y+y*b.Dy()/h, b.Min.Y+(y+1)*b.Dy()/h
		for x := range w {
			x0, x1 := b.Min.X+x*b.Dx()/w, b.Min.X+(x+1)*b.Dx()/w
			var sr, sg, sb, sa, n uint64
			for sy := y0; sy < y1; sy++ {
				for sx := x0; sx < x1; sx++ {
					c := at(sx, sy)
					sr, sg, sb, sa, n = sr+uint64(c.R), sg+uint64(c.G), sb+uint64(c.B), sa+uint64(c.A), n+1
				}
			}
			if n == 0 {
				continue
			}
			c := color.RGBA64{R: uint16(sr / n), G: uint16(sg / n), B: uint16(sb / n), A: uint16(sa / n)} //nolint:gosec // averages of 16 bits
			opaque = opaque && c.A == 0xffff
			out.Set(x, y, c)
		}
	}
	return out, opaque
}

// pixels reads one without allocating, which all pictures of the library can do.
func pixels(src image.Image) func(x, y int) color.RGBA64 {
	if fast, ok := src.(image.RGBA64Image); ok {
		return fast.RGBA64At
	}
	return func(x, y int) color.RGBA64 { return color.RGBA64Model.Convert(src.At(x, y)).(color.RGBA64) }
}

// turns say where the pixel at x, y of what is upright comes from, in a picture w
// wide and h high that lies as its orientation says (Exif 2.32 §4.6.4).
var turns = [9]func(x, y, w, h int) (int, int){
	2: func(x, y, w, _ int) (int, int) { return w - 1 - x, y },
	3: func(x, y, w, h int) (int, int) { return w - 1 - x, h - 1 - y },
	4: func(x, y, _, h int) (int, int) { return x, h - 1 - y },
	5: func(x, y, _, _ int) (int, int) { return y, x },
	6: func(x, y, _, h int) (int, int) { return y, h - 1 - x },
	7: func(x, y, w, h int) (int, int) { return w - 1 - y, h - 1 - x },
	8: func(x, y, w, _ int) (int, int) { return w - 1 - y, x },
}

// upright turns a picture the right way up.
func upright(src *image.NRGBA, orientation int) *image.NRGBA {
	turn := turns[orientation]
	if turn == nil {
		return src
	}
	w, h := src.Rect.Dx(), src.Rect.Dy()
	size := image.Rect(0, 0, w, h)
	if orientation > 4 {
		size = image.Rect(0, 0, h, w)
	}
	out := image.NewNRGBA(size)
	for y := range size.Dy() {
		for x := range size.Dx() {
			sx, sy := turn(x, y, w, h)
			out.SetNRGBA(x, y, src.NRGBAAt(sx, sy))
		}
	}
	return out
}
