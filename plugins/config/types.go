package config

import (
	"fmt"
	"log/slog"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Secret is text that no log, page or error ever shows. Every way of printing
// it gives "***" (nothing when it is empty); Reveal is the only way to it.
type Secret struct{ text string }

const stars = "***"

// NewSecret wraps text.
func NewSecret(text string) Secret { return Secret{text: text} }

// Reveal returns the text itself.
func (s Secret) Reveal() string { return s.text }

// IsZero reports whether the secret is empty.
func (s Secret) IsZero() bool { return s.text == "" }

// String returns "***", or "" for an empty secret.
func (s Secret) String() string {
	if s.text == "" {
		return ""
	}
	return stars
}

// Format answers every verb of package fmt, so that %d or %#v on a struct that
// holds a secret does not reach the text by reflection.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// LogValue keeps the text out of log/slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalYAML keeps the text out of YAML.
func (s Secret) MarshalYAML() ([]byte, error) { return []byte(strconv.Quote(s.String())), nil }

// MarshalText keeps the text out of JSON and everything else that encodes text.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// userinfo is what a URL says about who connects (RFC 3986 §3.2.1).
var userinfo = regexp.MustCompile(`://[^/?#\s"',]*@`)

// withoutUserinfo hides it: it may hold a password, or be a token as a whole.
func withoutUserinfo(text string) string { return userinfo.ReplaceAllString(text, "://"+stars+"@") }

// Size is a number of bytes, written "512", "256KiB", "1GiB", "10MB".
type Size int64

// The units of Size: binary ones first, for they are what String writes.
var sizeUnits = [...]struct {
	suffix string
	bytes  int64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"KB", 1e3}, {"B", 1},
}

// ParseSize reads a whole number with an optional unit of sizeUnits.
func ParseSize(text string) (Size, error) {
	digits, unit := text, int64(1)
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(text, u.suffix); ok {
			digits, unit = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || n > uint64(math.MaxInt64/unit) {
		return 0, fmt.Errorf(`%q is not a size (like 512, "256KiB" or "10MB")`, text)
	}
	return Size(int64(n) * unit), nil
}

// String writes the size with the largest binary unit that divides it.
func (s Size) String() string {
	for _, u := range sizeUnits[:4] {
		if s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.suffix
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

const day = 24 * time.Hour

// ParseDuration reads what time.ParseDuration reads, and days before it:
// "30d", "1d12h". A bare number has no unit and is refused, except 0.
func ParseDuration(text string) (time.Duration, error) {
	wrong := fmt.Errorf(`%q is not a duration (like "500ms", "30s", "5m", "12h" or "30d")`, text)
	rest, days := text, time.Duration(0)
	if head, tail, ok := strings.Cut(text, "d"); ok {
		n, err := strconv.ParseUint(head, 10, 32)
		if err != nil || n > uint64(math.MaxInt64/day) {
			return 0, wrong
		}
		if days, rest = time.Duration(n)*day, tail; rest == "" {
			return days, nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || (days > 0 && (d < 0 || days > math.MaxInt64-d)) {
		return 0, wrong
	}
	return days + d, nil
}

// FormatDuration writes a duration as ParseDuration reads it: "30d", "5m", "1h30m".
func FormatDuration(d time.Duration) string {
	if d == 0 {
		return "0s"
	}
	if d > 0 && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
