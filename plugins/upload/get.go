package upload

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// get serves a file: whole or in ranges (RFC 9110 §14), and only what is harmless to
// see is shown; everything else is for saving.
func (d *door) get(w http.ResponseWriter, r *http.Request) error {
	f, err := d.asked(r)
	if err != nil {
		return err
	}
	if f.state != stateStored {
		return notFound
	}
	c, err := d.store.content(r.Context(), f.blob)
	if err != nil {
		return err
	}
	if c == nil || c.missing {
		return notFound
	}
	typ, body := f.Type, io.ReadSeeker(nil)
	if r.URL.Query().Has(thumbnailKey) {
		small, err := d.thumbnail(r.Context(), f, c)
		if err != nil {
			return err
		}
		typ, body = http.DetectContentType(small), bytes.NewReader(small)
	} else {
		read := &reader{ctx: r.Context(), files: d.Files, c: c}
		defer func() { _ = read.Close() }()
		if read.open, err = d.open(r.Context(), c, 0); err != nil { // said with a status, not in the middle of the answer
			return err
		}
		body = read
	}
	d.describe(w.Header(), f, c, typ)
	out := d.pace(w, r).writing(w)
	defer out.end()
	http.ServeContent(out, r, "", f.Uploaded().Truncate(time.Second), body)
	d.m.bytes.WithLabelValues("out").Add(float64(out.done))
	return nil
}

// longestCached is how long a copy may be used without asking: so long may somebody
// see a file that was deleted.
const longestCached = day

// describe sets the headers of a file.
func (d *door) describe(h http.Header, f *File, c *content, typ string) {
	disposition := "attachment"
	switch {
	case f.shown:
		disposition = "inline"
	case typ == "" || typ == "text/html":
		typ = octets
	}
	h.Set("Content-Type", typ)
	h.Set("Content-Disposition", fmt.Sprintf("%s; filename*=UTF-8''%s", disposition, url.PathEscape(f.Name))) // RFC 6266 §4.3
	h.Set("ETag", `"`+hex.EncodeToString(c.hash[:16])+`"`)
	age := longestCached
	if !f.ends.IsZero() {
		age = min(age, f.ends.Sub(d.env.Clock.Now()))
	}
	h.Set("Cache-Control", fmt.Sprintf("private, max-age=%d, immutable", int(age.Seconds())))
}

const octets = "application/octet-stream"

// judge decides what a file is served as. Only what browsers show without running
// anything, and what the content really looks like, is shown; what is called a
// picture and is none is served as mere bytes (reliability row 19).
func judge(typ string, first []byte) (served string, shown bool) {
	looks, safe := safeTypes[typ]
	switch {
	case !safe:
		return typ, false
	case !looks(first):
		return octets, false
	}
	return typ, true
}

// looks reports whether content may be what it is called, by its first bytes.
type looks func(first []byte) bool

// at is content with one of some texts at an offset.
func at(offset int, texts ...string) looks {
	return func(b []byte) bool {
		for _, t := range texts {
			if len(b) >= offset+len(t) && string(b[offset:offset+len(t)]) == t {
				return true
			}
		}
		return false
	}
}

func both(a, b looks) looks { return func(x []byte) bool { return a(x) && b(x) } }

func either(a, b looks) looks { return func(x []byte) bool { return a(x) || b(x) } }

// mp3 is MPEG audio without tags: a frame begins with eleven bits set.
func mp3(b []byte) bool { return len(b) > 1 && b[0] == 0xff && b[1]&0xe0 == 0xe0 }

// safeTypes are what browsers may show: pictures, sound and films that have no
// scripts. SVG, HTML, PDF and text are not among them.
var safeTypes = map[string]looks{
	"image/jpeg": at(0, "\xff\xd8\xff"),
	"image/png":  at(0, "\x89PNG\r\n\x1a\n"),
	"image/gif":  at(0, "GIF87a", "GIF89a"),
	"image/webp": both(at(0, "RIFF"), at(8, "WEBP")),
	"image/avif": at(4, "ftypavif", "ftypavis"),
	"audio/mpeg": either(at(0, "ID3"), mp3),
	"audio/ogg":  at(0, "OggS"),
	"audio/opus": at(0, "OggS"),
	"audio/mp4":  at(4, "ftyp"),
	"audio/aac":  mp3, // its frames begin as those of MPEG audio do
	"audio/wav":  both(at(0, "RIFF"), at(8, "WAVE")),
	"audio/flac": at(0, "fLaC"),
	"audio/webm": at(0, "\x1a\x45\xdf\xa3"),
	"video/mp4":  at(4, "ftyp"),
	"video/ogg":  at(0, "OggS"),
	"video/webm": at(0, "\x1a\x45\xdf\xa3"),
}
