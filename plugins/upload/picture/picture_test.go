package picture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"testing"
	"testing/iotest"
)

// quarters is a picture whose corners have colours of their own: red and green above,
// blue and white below.
func quarters(w, h int) *image.NRGBA {
	m := image.NewNRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			c := []color.NRGBA{{255, 0, 0, 255}, {0, 255, 0, 255}, {0, 0, 255, 255}, {255, 255, 255, 255}}[x*2/w+2*(y*2/h)]
			m.SetNRGBA(x, y, c)
		}
	}
	return m
}

// exif is a JPEG's segment that says how it lies, and where it was taken.
func exif(order binary.AppendByteOrder, orientation uint16) []byte {
	t := map[bool]string{true: "II*\x00", false: "MM\x00*"}[order.String() == "LittleEndian"]
	b := order.AppendUint32([]byte(t), 8)
	b = order.AppendUint16(b, 2)
	for _, tag := range []struct{ id, value uint16 }{{0x010f, 1}, {tagOrientation, orientation}} {
		b = order.AppendUint16(b, tag.id)
		b = order.AppendUint16(b, 3)
		b = order.AppendUint32(b, 1)
		b = order.AppendUint16(b, tag.value)
		b = order.AppendUint16(b, 0)
	}
	b = append(append(b, 0, 0, 0, 0), "GPS: 51.0, 7.0"...)
	b = append([]byte("Exif\x00\x00"), b...)
	return append(binary.BigEndian.AppendUint16([]byte{0xff, 0xe1}, uint16(len(b)+2)), b...)
}

func encodeJPEG(t testing.TB, m image.Image, segment []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, &jpeg.Options{Quality: 95}); err != nil {
		t.Fatal(err)
	}
	return append(append(bytes.Clone(b.Bytes()[:2]), segment...), b.Bytes()[2:]...)
}

// corner names the colour of a pixel.
func corner(c color.Color) byte {
	r, g, b, _ := c.RGBA()
	switch {
	case r > 0x8000 && g > 0x8000 && b > 0x8000:
		return 'w'
	case r > 0x8000:
		return 'r'
	case g > 0x8000:
		return 'g'
	case b > 0x8000:
		return 'b'
	}
	return '?'
}

func corners(m image.Image) string {
	r := m.Bounds()
	x0, y0, x1, y1 := r.Min.X+2, r.Min.Y+2, r.Max.X-3, r.Max.Y-3
	return string([]byte{corner(m.At(x0, y0)), corner(m.At(x1, y0)), corner(m.At(x0, y1)), corner(m.At(x1, y1))})
}

// What comes out is the right way up, small, and has nothing of the file in it.
func TestThumbnailsAreUprightAndBare(t *testing.T) {
	for o, want := range map[uint16]string{0: "rgbw", 1: "rgbw", 2: "grwb", 3: "wbgr", 4: "bwrg", 5: "rbgw", 6: "brwg", 7: "wgbr", 8: "gwrb", 9: "rgbw"} {
		for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
			in := encodeJPEG(t, quarters(1200, 800), exif(order, o))
			info, err := Measure(bytes.NewReader(in))
			if err != nil {
				t.Fatal(err)
			}
			out, err := Thumbnail(bytes.NewReader(in))
			if err != nil {
				t.Fatal(err)
			}
			m, err := jpeg.Decode(bytes.NewReader(out))
			if err != nil {
				t.Fatal(err)
			}
			w, h, ok := info.Small()
			if got := corners(m); got != want || m.Bounds().Dx() != w || m.Bounds().Dy() != h || !ok || max(w, h) != Edge {
				t.Errorf("orientation %d: %s, want %s; %v, said %d × %d", o, got, want, m.Bounds(), w, h)
			}
			if (o >= 5 && o <= 8) != (info.Width == 800) {
				t.Errorf("orientation %d: %d × %d", o, info.Width, info.Height)
			}
			if bytes.Contains(out, []byte("Exif")) || bytes.Contains(out, []byte("GPS")) {
				t.Errorf("orientation %d: metadata stayed", o)
			}
		}
	}
}

func TestFormats(t *testing.T) {
	var p, clear, g bytes.Buffer
	if err := png.Encode(&p, quarters(600, 300)); err != nil {
		t.Fatal(err)
	}
	m := quarters(100, 300)
	m.SetNRGBA(50, 50, color.NRGBA{})
	if err := png.Encode(&clear, m); err != nil {
		t.Fatal(err)
	}
	if err := gif.Encode(&g, quarters(10, 10), nil); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		in   []byte
		typ  string
		w, h int
	}{
		"png":              {p.Bytes(), "image/jpeg", 512, 256},
		"one sees through": {clear.Bytes(), "image/png", 100, 300},
		"gif":              {g.Bytes(), "image/jpeg", 10, 10},
		"webp":             {webpOnePixel, "image/png", 1, 1},
		"thin":             {encodeJPEG(t, quarters(5000, 2), nil), "image/jpeg", 512, 1},
	} {
		out, err := Thumbnail(bytes.NewReader(c.in))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		conf, kind, err := image.DecodeConfig(bytes.NewReader(out))
		if err != nil || conf.Width != c.w || conf.Height != c.h || "image/"+kind != c.typ {
			t.Errorf("%s: %s %d × %d, %v", name, kind, conf.Width, conf.Height, err)
		}
	}
}

// webpOnePixel is a lossless picture of one pixel, of which one sees nothing.
var webpOnePixel = []byte("RIFF\x1a\x00\x00\x00WEBPVP8L\x0d\x00\x00\x00\x2f\x00\x00\x00\x10\x07\x10\x11\x11\x88\x88\xfe\x07\x00")

// pngOf says of itself that it is so large.
func pngOf(w, h uint32, depth byte) []byte {
	head := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32([]byte("IHDR"), w), h)
	head = append(head, depth, 6, 0, 0, 0)
	b := append([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x0d"), head...)
	return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(head))
}

// A few bytes that say they are gigabytes are not believed: nothing of them is
// decoded (reliability row 19).
func TestReliability19PictureBombs(t *testing.T) {
	progressive := encodeJPEG(t, quarters(8, 8), nil)
	sof := bytes.Index(progressive, []byte{0xff, 0xc0})
	progressive[sof+1] = 0xc2
	binary.BigEndian.PutUint16(progressive[sof+5:], 4000)
	binary.BigEndian.PutUint16(progressive[sof+7:], 4000)
	canvas := []byte("RIFF\x00\x01\x00\x00WEBPVP8X\x0a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00VP8 \x40\x00\x00\x00\x10\x00\x00\x9d\x01\x2a\xff\x3f\xff\x3f")
	canvas = append(canvas, make([]byte, 100)...)
	for name, in := range map[string][]byte{
		"png":                      pngOf(50_000, 50_000, 8),
		"png, larger than ints":    pngOf(1<<31-1, 1<<31-1, 8),
		"png of 16 bits":           pngOf(4000, 4000, 16),
		"progressive jpeg":         progressive,
		"gif":                      []byte("GIF89a\xff\xff\xff\xff\x00\x00\x00"),
		"webp larger than it says": canvas,
	} {
		if n := testing.AllocsPerRun(1, func() {
			if out, err := Thumbnail(bytes.NewReader(in)); !errors.Is(err, ErrNone) || out != nil {
				t.Errorf("%s: %d bytes, %v", name, len(out), err)
			}
		}); n > 1000 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestNoPicture(t *testing.T) {
	whole := encodeJPEG(t, quarters(64, 64), nil)
	for name, in := range map[string][]byte{
		"empty": nil, "text": []byte("hello"), "cut": whole[:len(whole)/2], "head alone": whole[:3],
		"no exif": append([]byte{0xff, 0xd8}, exif(binary.BigEndian, 6)...),
		"no size": pngOf(0, 0, 8),
	} {
		if out, err := Thumbnail(bytes.NewReader(in)); !errors.Is(err, ErrNone) && len(out) == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	broken := errors.New("disk")
	if _, err := Thumbnail(iotest.ErrReader(broken)); !errors.Is(err, broken) || errors.Is(err, ErrNone) {
		t.Errorf("an error of the reader: %v", err)
	}
}

func FuzzThumbnail(f *testing.F) {
	f.Add(encodeJPEG(f, quarters(16, 8), exif(binary.LittleEndian, 6)))
	f.Add(webpOnePixel)
	f.Add(pngOf(1, 1, 8))
	f.Fuzz(func(t *testing.T, in []byte) {
		if info, err := Measure(bytes.NewReader(in)); err != nil || info.Width*info.Height > 1<<20 {
			return // to be quick
		}
		out, err := Thumbnail(bytes.NewReader(in))
		if err != nil {
			return
		}
		if c, _, err := image.DecodeConfig(bytes.NewReader(out)); err != nil || c.Width > Edge || c.Height > Edge {
			t.Errorf("%d × %d, %v", c.Width, c.Height, err)
		}
	})
}

func FuzzMeasure(f *testing.F) {
	f.Add(encodeJPEG(f, quarters(16, 8), exif(binary.BigEndian, 3)))
	f.Add(webpOnePixel)
	f.Fuzz(func(t *testing.T, in []byte) {
		info, err := Measure(bytes.NewReader(in))
		if err == nil && (info.Width <= 0 || info.Height <= 0 || info.orientation < 1 || info.orientation > 8) {
			t.Errorf("%+v", info)
		}
	})
}
