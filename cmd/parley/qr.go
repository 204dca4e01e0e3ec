package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
	"rsc.io/qr"
)

// quiet is the margin of a code, in modules (ISO/IEC 18004 asks for four; two
// are enough for every telephone, and fit more terminals).
const quiet = 2

// printQR prints a code in half blocks, two modules above each other in one
// character. On a terminal its colours are set, so that dark is dark on every
// background.
func printQR(w io.Writer, text string) error {
	code, err := qr.Encode(text, qr.L)
	if err != nil {
		return fmt.Errorf("QR code: %w", err)
	}
	begin, end := "", ""
	if isTerminal(w) {
		begin, end = "\x1b[97;40m", "\x1b[0m"
	}
	light := func(x, y int) bool { return !code.Black(x, y) }
	var b strings.Builder
	for y := -quiet; y < code.Size+quiet; y += 2 {
		b.WriteString("  " + begin)
		for x := -quiet; x < code.Size+quiet; x++ {
			b.WriteString(half(light(x, y), light(x, y+1)))
		}
		b.WriteString(end + "\n")
	}
	_, err = io.WriteString(w, b.String())
	return err
}

func half(upper, lower bool) string {
	switch {
	case upper && lower:
		return "█"
	case upper:
		return "▀"
	case lower:
		return "▄"
	}
	return " "
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
