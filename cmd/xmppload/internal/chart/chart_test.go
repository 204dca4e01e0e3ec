package chart

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
)

func sample() Chart {
	return Chart{Title: "Cost & <growth>", X: "sessions", Y: "ms", Lines: []Line{
		{Name: "one", X: []float64{100, 1000, 50_000}, Y: []float64{1, 1.1, 1.2}},
		{Name: "two", X: []float64{100, 1000}, Y: []float64{1.2, 1.21}},
		{Name: "floor", X: []float64{100, 1000, 50_000}, Y: []float64{0, 0.01, 1.19}, Reference: true},
	}}
}

// TestWellFormed: a reader's browser takes XML at its word.
func TestWellFormed(t *testing.T) {
	for name, c := range map[string]Chart{
		"lines": sample(), "none": {}, "point": {Lines: []Line{{Name: "x", X: []float64{100}, Y: []float64{0}}}},
	} {
		svg := c.SVG()
		if bytes.Contains(svg, []byte("NaN")) || bytes.Contains(svg, []byte("Inf")) {
			t.Errorf("%s: a place that is none:\n%s", name, svg)
		}
		for d := xml.NewDecoder(bytes.NewReader(svg)); ; {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	if s := string(sample().SVG()); !strings.Contains(s, "prefers-color-scheme: dark") || !strings.Contains(s, "50,000") {
		t.Error("no dark scheme, or no tick at the last size")
	}
}

// TestNamesApart: names at the ends of lines that meet can all be read, inside
// the picture and in the lines' order.
func TestNamesApart(t *testing.T) {
	c := Chart{}
	for range 8 {
		c.Lines = append(c.Lines, Line{Name: "x", X: []float64{1, 10}, Y: []float64{5, 0.01}})
	}
	for _, c := range []Chart{c, sample()} {
		ends := c.ends(c.scales())
		slices.Sort(ends)
		for i, y := range ends {
			if y < top || y > bottom {
				t.Errorf("a name stands at %.1f", y)
			}
			if i > 0 && y-ends[i-1] < lineHeight-0.01 {
				t.Errorf("names at %.1f and %.1f", ends[i-1], y)
			}
		}
	}
}

func TestPlaces(t *testing.T) {
	s := sample().scales()
	if s.y(0) != bottom || s.top < 1.21 || s.y(s.top) < top {
		t.Errorf("y runs to %v at %v", s.top, s.y(s.top))
	}
	if !(s.x(100) > left && s.x(100) < s.x(1000) && s.x(50_000) < right) {
		t.Error("x is not in order")
	}
	for v, want := range map[float64]float64{0.3: 0.5, 1: 1, 1.1: 2, 2.2: 2.5, 7: 10, 0: 1} {
		if got := nice(v); got < want*0.999 || got > want*1.001 {
			t.Errorf("nice(%v) = %v, not %v", v, got, want)
		}
	}
	for v, want := range map[float64]string{5_000_000: "5,000,000", 100: "100", 0.25: "0.25", 0: "0"} {
		if got := Number(v); got != want {
			t.Errorf("%v is written %q, not %q", v, got, want)
		}
	}
}
