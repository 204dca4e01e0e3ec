// Package chart draws lines over a logarithmic x axis as SVG. The files need
// nothing else: no script, no font, no style sheet; colours follow the
// reader's light or dark scheme.
package chart

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Line is one thing that was measured at several sizes.
type Line struct {
	Name      string
	X, Y      []float64
	Reference bool // grey and dashed: what others are compared with
}

// Chart is a picture.
type Chart struct {
	Title string
	X, Y  string // what the axes are, with units
	Lines []Line
}

// The picture's measures, in SVG's units.
const (
	width, height = 820, 380
	left, right   = 64, 580 // of the plot; names stand behind it
	top, bottom   = 56, 320
	lineHeight    = 18
)

const style = `
 .paper{fill:#fff} .grid{stroke:#e3e3e0} .axis{stroke:#8a8a86} text{fill:#3a3a38;font:13px system-ui,sans-serif} .title{font-size:15px;font-weight:600}
 path{fill:none;stroke-width:2;stroke-linejoin:round} .end{text-anchor:end} .mid{text-anchor:middle}
 .c0{stroke:#0b62b0} .c1{stroke:#c2500a} .c2{stroke:#0a7f5d} .c3{stroke:#8a3ea8} .c4{stroke:#a3740a} .c5{stroke:#b32350} .ref{stroke:#77777a;stroke-dasharray:5 4}
 circle{fill:#fff;stroke-width:2}
 @media (prefers-color-scheme: dark){
 .paper,circle{fill:#161618} .grid{stroke:#333336} .axis{stroke:#77777a} text{fill:#d6d6d2}
 .c0{stroke:#62a8ee} .c1{stroke:#f08a4b} .c2{stroke:#3fc39a} .c3{stroke:#c58be0} .c4{stroke:#dcb04a} .c5{stroke:#f0769c} .ref{stroke:#9a9a9e}}
`

// colours is how many lines have one of their own.
const colours = 6

// SVG draws it.
func (c Chart) SVG() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 %d %d' role='img'>\n<title>%s</title>\n<style>%s</style>\n", width, height, escape(c.Title), style)
	fmt.Fprintf(&b, "<rect class='paper' width='%d' height='%d' rx='6'/>\n", width, height)
	text(&b, "title", left-44, 26, c.Title)
	text(&b, "", left-44, 46, c.Y)
	s := c.scales()
	s.grid(&b)
	text(&b, "mid", (left+right)/2, height-14, c.X)
	ends := c.ends(s)
	colour := 0
	for i, l := range c.Lines {
		class := "ref"
		if !l.Reference {
			class = "c" + strconv.Itoa(colour%colours)
			colour++
		}
		c.line(&b, s, l, class, ends[i])
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

func (c Chart) line(b *bytes.Buffer, s scales, l Line, class string, nameAt float64) {
	if len(l.X) == 0 {
		return
	}
	var d strings.Builder
	for i := range l.X {
		fmt.Fprintf(&d, "%c%.1f %.1f", "ML"[min(i, 1)], s.x(l.X[i]), s.y(l.Y[i]))
	}
	fmt.Fprintf(b, "<path class='%s' d='%s'/>\n", class, d.String())
	for i := range l.X {
		fmt.Fprintf(b, "<circle class='%s' cx='%.1f' cy='%.1f' r='3.5'><title>%s, %s: %s</title></circle>\n", strings.ReplaceAll(class, "ref", "ref dot"),
			s.x(l.X[i]), s.y(l.Y[i]), escape(l.Name), Number(l.X[i]), Number(l.Y[i]))
	}
	last := len(l.X) - 1
	fmt.Fprintf(b, "<path class='%s' d='M%.1f %.1fL%d %.1fL%d %.1f' stroke-opacity='.45'/>\n", class, s.x(l.X[last])+5, s.y(l.Y[last]), right+14, nameAt, right+24, nameAt)
	text(b, "", right+29, nameAt+4, l.Name)
}

// ends is where the names of lines stand: beside their last points, but not
// over each other.
func (c Chart) ends(s scales) []float64 {
	type end struct {
		line int
		y    float64
	}
	var all []end
	for i, l := range c.Lines {
		if len(l.Y) > 0 {
			all = append(all, end{i, s.y(l.Y[len(l.Y)-1])})
		}
	}
	slices.SortStableFunc(all, func(a, b end) int { return int(math.Copysign(1, a.y-b.y)) })
	for i := 1; i < len(all); i++ {
		all[i].y = max(all[i].y, all[i-1].y+lineHeight)
	}
	for i := len(all) - 1; i >= 0; i-- { // and not below the axis
		all[i].y = min(all[i].y, bottom-float64(len(all)-1-i)*lineHeight)
	}
	out := make([]float64, len(c.Lines))
	for _, e := range all {
		out[e.line] = e.y
	}
	return out
}

// scales turn values into places.
type scales struct {
	low, high float64 // log10 of x
	top, step float64 // of y
	ticks     []float64
}

func (c Chart) scales() scales {
	s := scales{low: math.Inf(1), high: math.Inf(-1)}
	most := 0.0
	for _, l := range c.Lines {
		for i, x := range l.X {
			s.low, s.high = min(s.low, math.Log10(x)), max(s.high, math.Log10(x))
			most = max(most, l.Y[i])
			s.ticks = append(s.ticks, x)
		}
	}
	if s.high <= s.low {
		s.low, s.high = s.low-1, s.high+1
	}
	slices.Sort(s.ticks)
	s.ticks = slices.Compact(s.ticks)
	s.step = nice(most / 4)
	s.top = max(math.Ceil(most/s.step), 1) * s.step
	return s
}

func (s scales) x(v float64) float64 {
	return left + 12 + (math.Log10(v)-s.low)/(s.high-s.low)*(right-left-24)
}

func (s scales) y(v float64) float64 { return bottom - v/s.top*(bottom-top-8) }

func (s scales) grid(b *bytes.Buffer) {
	for i := 0; ; i++ {
		v := float64(i) * s.step
		if v > s.top*1.001 {
			break
		}
		class := "grid"
		if i == 0 {
			class = "axis"
		}
		fmt.Fprintf(b, "<line class='%s' x1='%d' x2='%d' y1='%.1f' y2='%.1f'/>\n", class, left, right, s.y(v), s.y(v))
		text(b, "end", left-8, s.y(v)+4, Number(v))
	}
	for _, v := range s.ticks {
		fmt.Fprintf(b, "<line class='axis' x1='%.1f' x2='%.1f' y1='%d' y2='%d'/>\n", s.x(v), s.x(v), bottom, bottom+5)
		text(b, "mid", s.x(v), bottom+20, Number(v))
	}
}

// nice is the next of 1, 2, 2.5 and 5 times a power of ten.
func nice(v float64) float64 {
	if v <= 0 {
		return 1
	}
	p := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 2.5, 5} {
		if v <= m*p*1.0001 {
			return m * p
		}
	}
	return 10 * p
}

// Number writes a value with three digits that matter, thousands apart.
func Number(v float64) string {
	if v < 1000 {
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
	s := strconv.FormatFloat(v, 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func text(b *bytes.Buffer, class string, x, y float64, s string) {
	if class != "" {
		class = " class='" + class + "'"
	}
	fmt.Fprintf(b, "<text%s x='%.1f' y='%.1f'>%s</text>\n", class, x, y, escape(s))
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s))
	return b.String()
}
