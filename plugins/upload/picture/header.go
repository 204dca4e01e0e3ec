package picture

import (
	"bytes"
	"encoding/binary"
	"image"
	"image/color"
)

// What headers say that the decoders' own look at them does not tell.

// heavy is the weight of pixels that take twice the memory.
const heavy = 2

// segments calls f with each segment of a JPEG's head, up to the picture's own data
// (ITU-T T.81 B.1.1.4), until f returns false.
func segments(b []byte, f func(marker byte, data []byte) bool) {
	for b = b[2:]; len(b) >= 4 && b[0] == 0xff; {
		marker := b[1]
		if marker == 0xff { // fill bytes may precede
			b = b[1:]
			continue
		}
		if marker == 0xda { // start of scan
			return
		}
		n := 2 + int(binary.BigEndian.Uint16(b[2:]))
		if n < 4 || n > len(b) {
			return
		}
		if !f(marker, b[4:n]) {
			return
		}
		b = b[n:]
	}
}

// measureJPEG finds progressive pictures, whose coefficients are all kept until the
// end.
func measureJPEG(head []byte, c image.Config) (int, int, int) {
	weight := 1
	segments(head, func(marker byte, _ []byte) bool {
		if marker == 0xc2 { // SOF2
			weight = heavy
		}
		return true
	})
	return c.Width, c.Height, weight
}

func measurePNG(_ []byte, c image.Config) (int, int, int) {
	switch c.ColorModel {
	case color.RGBA64Model, color.NRGBA64Model:
		return c.Width, c.Height, heavy
	}
	return c.Width, c.Height, 1
}

// measureWebP reads the sizes of the pictures themselves: that of the canvas may be
// another one (RFC 9649 §2.5 to §2.7).
func measureWebP(head []byte, _ image.Config) (w, h, weight int) {
	weight = 1
	for b := head[12:]; len(b) >= 8; {
		size := int64(binary.LittleEndian.Uint32(b[4:]))
		data := b[8:]
		switch id := string(b[:4]); {
		case id == "VP8 " && len(data) >= 10:
			w = max(w, int(binary.LittleEndian.Uint16(data[6:])&0x3fff))
			h = max(h, int(binary.LittleEndian.Uint16(data[8:])&0x3fff))
		case id == "VP8L" && len(data) >= 5:
			bits := binary.LittleEndian.Uint32(data[1:])
			w = max(w, int(bits&0x3fff)+1)
			h = max(h, int(bits>>14&0x3fff)+1)
		}
		if size += size & 1; size > int64(len(data)) {
			// What is behind it is beyond the head. The picture's own chunk has to have
			// come by now.
			if w == 0 {
				return 1 << 20, 1 << 20, weight
			}
			return w, h, weight
		}
		b = data[size:]
	}
	if w == 0 {
		return 1 << 20, 1 << 20, weight
	}
	return w, h, weight
}

// orientation reads how a JPEG lies, 1 to 8; 1, upright, when it does not say.
func orientation(head []byte) (o int) {
	o = 1
	segments(head, func(marker byte, data []byte) bool {
		if tiff, ok := bytes.CutPrefix(data, []byte("Exif\x00\x00")); marker == 0xe1 && ok {
			o = orientationOf(tiff)
			return false
		}
		return true
	})
	return o
}

const tagOrientation = 0x0112

// orientationOf reads the first directory of a TIFF (TIFF 6.0 §2).
func orientationOf(b []byte) int {
	if len(b) < 8 {
		return 1
	}
	order := map[string]binary.ByteOrder{"II": binary.LittleEndian, "MM": binary.BigEndian}[string(b[:2])]
	if order == nil {
		return 1
	}
	at := int64(order.Uint32(b[4:]))
	if at+2 > int64(len(b)) {
		return 1
	}
	n := int(order.Uint16(b[at:]))
	for e := b[at+2:]; n > 0 && len(e) >= 12; n, e = n-1, e[12:] {
		if order.Uint16(e) != tagOrientation {
			continue
		}
		if o := int(order.Uint16(e[8:])); o >= 1 && o <= 8 {
			return o
		}
		return 1
	}
	return 1
}
