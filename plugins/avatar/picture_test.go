package avatar

import (
	"bytes"
	"encoding/base64"
	"image"
	"image/color"
	"image/gif"
	"image/png"
	"testing"

	"parley/parser/stanza"
	"parley/plugins/vcard"
)

func cardWith(mime, data string) *stanza.Element {
	photo := stanza.El(vcard.NS, "PHOTO")
	if mime != "" {
		photo.Add(stanza.El(vcard.NS, "TYPE").AddText(mime))
	}
	return stanza.El(vcard.NS, "vCard").Add(photo.Add(stanza.El(vcard.NS, "BINVAL").AddText(data)))
}

// What is published of a photo (XEP-0398 §3.2, XEP-0153 §5, XEP-0084 §4.2.1).
func TestPhoto(t *testing.T) {
	c := &component{cfg: *defaults()}
	pixels := image.NewPaletted(image.Rect(0, 0, 5, 3), color.Palette{color.Black, color.White})
	var asPNG, asGIF bytes.Buffer
	if err := png.Encode(&asPNG, pixels); err != nil {
		t.Fatal(err)
	}
	if err := gif.Encode(&asGIF, pixels, nil); err != nil {
		t.Fatal(err)
	}
	text := func(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
	for _, s := range []struct{ name, mime, data, typ, width string }{
		{"png", "image/png", text(asPNG.Bytes()), "image/png", "5"},
		{"gif", "", text(asGIF.Bytes()), "image/gif", "5"},
		{"no picture by its type", "text/html", text(asPNG.Bytes()), "image/png", "5"},
		{"a head without a body", "image/webp", text([]byte("RIFF\x00\x00\x00\x00WEBPVP")), "image/webp", ""},
		{"cut off", "", text(asPNG.Bytes()[:10]), "image/png", ""},
		{"no picture", "image/png", text([]byte("<svg onload='x'/>")), "", ""},
		{"no base64", "image/png", "!!", "", ""},
		{"empty", "image/png", "", "", ""},
		{"too large", "image/png", text(append(asPNG.Bytes(), make([]byte, 200<<10)...)), "", ""},
	} {
		p, info := c.photo(cardWith(s.mime, s.data))
		switch {
		case s.typ == "" && p != nil:
			t.Errorf("%s: it is published", s.name)
		case s.typ == "":
		case p == nil:
			t.Errorf("%s: it is not published", s.name)
		case info.Get("type") != s.typ || info.Get("width") != s.width || info.Get("id") != p.hash:
			t.Errorf("%s: %s", s.name, info.Bytes(""))
		}
	}
	if p, _ := c.photo(stanza.El(vcard.NS, "vCard").Add(stanza.El(vcard.NS, "PHOTO"))); p != nil {
		t.Error("an empty photo is published")
	}
}

// Nothing that comes in a vCard breaks it, and what is published is what came.
func FuzzPhoto(f *testing.F) {
	f.Add("image/png", []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01"))
	f.Add("image/jpeg", []byte("\xff\xd8\xff\xe0\x00\x10JFIF"))
	f.Add("", []byte("GIF89a\x01\x00\x01\x00\x80"))
	f.Fuzz(func(t *testing.T, mime string, data []byte) {
		c := &component{cfg: *defaults()}
		p, info := c.photo(cardWith(mime, base64.StdEncoding.EncodeToString(data)))
		if p == nil {
			return
		}
		back, got, ok := read(p.text, p.mime)
		if !ok || !bytes.Equal(got, data) || back.hash != info.Get("id") {
			t.Fatalf("%q became %q", data, got)
		}
	})
}
