//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"parley/cmd/xmppload/internal/chart"
)

func (g *growth) all(ctx context.Context, w io.Writer) error {
	g.began = time.Now()
	known := parts()
	for _, id := range g.only {
		if !slices.ContainsFunc(known, func(p part) bool { return p.id == id }) {
			return fmt.Errorf("--only %s: no such part", id)
		}
	}
	for _, p := range known {
		if len(g.only) > 0 && !slices.Contains(g.only, p.id) {
			continue
		}
		g.say("%s: %s", p.id, p.does)
		if err := p.run(g, ctx); err != nil {
			return fmt.Errorf("%s: %w", p.id, err)
		}
	}
	for _, t := range g.topics {
		if _, err := fmt.Fprintf(w, "\n%s (%s)\n", t.Title, t.Y); err != nil {
			return err
		}
		if err := table(w, t.rows()); err != nil {
			return err
		}
	}
	if err := g.write(); err != nil {
		return err
	}
	if len(g.bad) > 0 {
		return fmt.Errorf("%w: %s", errFaults, strings.Join(g.bad, "; "))
	}
	return nil
}

// rows are the topic's table: a line per size, and how many times the first
// size's figure the last one's is.
func (t topic) rows() [][]string {
	head, last := []string{t.X}, []string{"last ÷ first"}
	var sizes []float64
	for _, l := range t.Lines {
		head = append(head, l.Name)
		end := len(l.Y) - 1
		last = append(last, figure(l.Y[end]/l.Y[0], l.Y[0] > 0))
		sizes = append(sizes, l.X...)
	}
	slices.Sort(sizes)
	out := [][]string{head}
	for _, x := range slices.Compact(sizes) {
		r := []string{chart.Number(x)}
		for _, l := range t.Lines {
			i := slices.Index(l.X, x)
			if i < 0 {
				r = append(r, "–")
				continue
			}
			r = append(r, figure(l.Y[i], true))
		}
		out = append(out, r)
	}
	return append(out, last)
}

// write puts charts, and with all parts the page, into the folder.
func (g *growth) write() error {
	if g.out == "" {
		return nil
	}
	dir := filepath.Join(g.out, "growth")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, t := range g.topics {
		if err := os.WriteFile(filepath.Join(dir, t.id+".svg"), t.SVG(), 0o644); err != nil {
			return err
		}
	}
	if len(g.only) > 0 {
		return nil
	}
	return os.WriteFile(filepath.Join(g.out, "growth.md"), []byte(g.page()), 0o644)
}

func (g *growth) page() string {
	var b strings.Builder
	b.WriteString("# How cost grows\n\nWritten by `make growth`. The same work is measured while what surrounds it grows: a line that stays level is work that does not care.\n" +
		"The server runs on one core, the generator on another; CPU is the server's own, user and system. *Floor* only moves the same bytes between the same sockets:\n" +
		"what its line rises by is the kernel's share.\n\n")
	if g.scale != 1 {
		fmt.Fprintf(&b, "At %g of the full size. ", g.scale)
	}
	fmt.Fprintf(&b, "%s, in %s. %s.\n%s.\n", time.Now().UTC().Format("2006-01-02"), time.Since(g.began).Round(time.Second), machine(), g.versions())
	if g.short != "" {
		fmt.Fprintf(&b, "%s.\n", upper(g.short))
	}
	for _, t := range g.topics {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n![%s: %s by %s](growth/%s.svg)\n\n%s:\n\n", t.Title, t.text, t.Title, t.Y, t.X, t.id, upper(t.Y))
		markdown(&b, t.rows())
	}
	return b.String()
}

func upper(s string) string { return strings.ToUpper(s[:1]) + s[1:] }
