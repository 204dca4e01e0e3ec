package jid

import (
	"errors"
	"strings"
	"testing"

	mellium "mellium.im/xmpp/jid"
	"pgregory.net/rapid"
)

// RFC 7622 §3.5, table 1, and more of the kind.
func TestRule33Accepted(t *testing.T) {
	long := strings.Repeat("a", 1023)
	longDomain := strings.TrimSuffix(strings.Repeat(strings.Repeat("a", 63)+".", 16), ".")
	for in, want := range map[string][3]string{
		"juliet@example.com":                 {"juliet", "example.com", ""},
		"juliet@example.com/foo":             {"juliet", "example.com", "foo"},
		"juliet@example.com/foo bar":         {"juliet", "example.com", "foo bar"},
		"juliet@example.com/foo@bar":         {"juliet", "example.com", "foo@bar"},
		"foo\\20bar@example.com":             {"foo\\20bar", "example.com", ""},
		"fussball@example.com":               {"fussball", "example.com", ""},
		"fu\u00DFball@example.com":           {"fu\u00DFball", "example.com", ""},
		"\u03C0@example.com":                 {"\u03C0", "example.com", ""},
		"\u03A3@example.com/foo":             {"\u03C3", "example.com", "foo"},
		"\u03C3@example.com/foo":             {"\u03C3", "example.com", "foo"},
		"\u03C2@example.com/foo":             {"\u03C2", "example.com", "foo"},
		"king@example.com/\u265A":            {"king", "example.com", "\u265A"},
		"example.com":                        {"", "example.com", ""},
		"example.com/foobar":                 {"", "example.com", "foobar"},
		"a.example.com/b@example.net":        {"", "a.example.com", "b@example.net"},
		"a/b/c@d":                            {"", "a", "b/c@d"},
		"Juliet@EXAMPLE.com/Balcony":         {"juliet", "example.com", "Balcony"},
		"a@example.com.":                     {"a", "example.com", ""},
		"a@example.com./x":                   {"a", "example.com", "x"},
		"a@xn--bcher-kva.example":            {"a", "b\u00FCcher.example", ""},
		"a@XN--Bcher-KVA.example":            {"a", "b\u00FCcher.example", ""},
		"a@B\u00DCCHER.example":              {"a", "b\u00FCcher.example", ""},
		"a@\uFF45xample.com":                 {"a", "example.com", ""},
		"a@[2001:DB8:0::1]/r":                {"a", "[2001:db8::1]", "r"},
		"192.0.2.1":                          {"", "192.0.2.1", ""},
		"a@b/foo\u00A0bar":                   {"a", "b", "foo bar"},
		"a@b/e\u0301":                        {"a", "b", "\u00E9"},
		long + "@" + longDomain + "/" + long: {long, longDomain, long},
		"a@b/" + strings.Repeat("B", 1023):   {"a", "b", strings.Repeat("B", 1023)},
	} {
		j, err := Parse(in)
		if err != nil {
			t.Errorf("%+q: %v", in, err)
			continue
		}
		if got := [3]string{j.Local(), j.Domain(), j.Resource()}; got != want {
			t.Errorf("%+q: got %+q, want %+q", in, got, want)
		}
		if same, err := New(want[0], want[1], want[2]); err != nil || same != j || MustParse(j.String()) != j {
			t.Errorf("%+q: not equal to the address of its parts (%v)", in, err)
		}
	}
}

// RFC 7622 §3.5, table 2, and more of the kind.
func TestRule33Refused(t *testing.T) {
	long := strings.Repeat("a", 1024)
	for _, in := range []string{
		"", "@", "/", "@/", "\"juliet\"@example.com", "foo bar@example.com", "juliet@example.com/", "@example.com/",
		"@example.com", "henry\u2163@example.com", "\u265A@example.com", "juliet@", "juliet@/foo", "/foo",
		"a&b@example.com", "a'b@example.com", "a:b@example.com", "a<b@example.com", "a>b@example.com", "a@b@example.com",
		"a@exa mple.com", "a@example..com", "a@.com", "a@example.com..", "a@.", "a@-example.com", "a@example-.com",
		"a@b_c.com", "a@xn--a.com", "a@[::1", "a@[::1%eth0]", "a@[192.0.2.1]", "a@[]", "a@b\u3002",
		"a@b/\x00", "a@b/\x07", "a\xff@b", "a@b\xff", "a@b/\xff", "\uFF02@b", "a@\u2100.com", "a@b\u2488com",
		long + "@b", "a@" + long, "a@b/" + long, "a@b/" + strings.Repeat("\u00E9", 512),
		strings.Repeat("\u0130", 512) + "@b", "a@b/" + strings.Repeat("e\u0301", 9000),
	} {
		if j, err := Parse(in); !errors.Is(err, ErrMalformed) {
			t.Errorf("%+.60q: accepted as %+.60q (%v)", in, j, err)
		}
	}
}

// Alice@EXAMPLE.org is alice@example.org, as a map key too.
func TestRule34Comparable(t *testing.T) {
	seen := map[JID]bool{MustParse("alice@example.org/R"): true}
	if !seen[MustParse("ALICE@Example.ORG./R")] || seen[MustParse("alice@example.org/r")] {
		t.Fatal("comparison is not that of prepared strings")
	}
}

func TestAccessors(t *testing.T) {
	full := MustParse("a@b.c/d/e")
	for _, c := range []struct {
		j                   JID
		s                   string
		bare, full, dom, no bool
	}{
		{full, "a@b.c/d/e", false, true, false, false},
		{full.Bare(), "a@b.c", true, false, false, false},
		{full.Host(), "b.c", true, false, true, false},
		{full.Bare().Host(), "b.c", true, false, true, false},
		{MustParse("b.c/d"), "b.c/d", false, true, false, false},
		{MustParse("b.c/d").Bare(), "b.c", true, false, true, false},
		{JID{}, "", true, false, false, true},
		{JID{}.Bare().Host(), "", true, false, false, true},
	} {
		if c.j.String() != c.s || c.j.IsBare() != c.bare || c.j.IsFull() != c.full || c.j.IsDomain() != c.dom || c.j.IsZero() != c.no {
			t.Errorf("%q: %+v", c.s, c.j)
		}
	}
	if full.Bare() != MustParse("a@b.c") || full.Host() != MustParse("b.c") {
		t.Error("derived addresses differ from parsed ones")
	}
	if r, err := full.WithResource("X\u00A0y"); err != nil || r != MustParse("a@b.c/X y") {
		t.Errorf("WithResource: %v %v", r, err)
	}
	if r, err := full.WithResource(""); err != nil || r != full.Bare() {
		t.Errorf("WithResource: %v %v", r, err)
	}
	if _, err := full.WithResource("\x01"); !errors.Is(err, ErrMalformed) {
		t.Errorf("WithResource: %v", err)
	}
	if _, err := (JID{}).WithResource("x"); !errors.Is(err, ErrMalformed) {
		t.Errorf("WithResource on nothing: %v", err)
	}
}

func TestText(t *testing.T) {
	var j JID
	if err := j.UnmarshalText([]byte("A@b/C")); err != nil || j != MustParse("a@b/C") {
		t.Fatal(j, err)
	}
	if b, err := j.MarshalText(); err != nil || string(b) != "a@b/C" {
		t.Fatal(b, err)
	}
	if err := j.UnmarshalText([]byte("@")); err == nil || j != MustParse("a@b/C") {
		t.Fatal("a failed decoding changed the address", j, err)
	}
	if err := j.UnmarshalText(nil); err != nil || !j.IsZero() {
		t.Fatal(j, err)
	}
}

// check holds what is true of every string.
func check(t interface{ Fatalf(string, ...any) }, s string) {
	j, err := Parse(s)
	if err != nil {
		if !errors.Is(err, ErrMalformed) || !j.IsZero() {
			t.Fatalf("%+q: %v, %+v", s, err, j)
		}
		return
	}
	if again, err := Parse(j.String()); err != nil || again != j {
		t.Fatalf("%+q: prepared %+q, then %+q (%v)", s, j, again, err)
	}
	if parts, err := New(j.Local(), j.Domain(), j.Resource()); err != nil || parts != j {
		t.Fatalf("%+q: from parts %+q (%v)", s, parts, err)
	}
	if len(j.Local()) > 1023 || len(j.Domain()) > 1023 || len(j.Resource()) > 1023 || j.Domain() == "" {
		t.Fatalf("%+q: lengths", s)
	}
	if strings.ContainsAny(j.Local(), `"&'/:<>@`) || strings.ContainsAny(j.Domain(), "@/") {
		t.Fatalf("%+q: forbidden characters in %+q", s, j)
	}
	// The shortcut and the full road lead to the same address. mellium keeps the spelling of IPv6 addresses, and strips
	// nothing but one dot.
	if m, err := mellium.Parse(s); err == nil && !strings.Contains(s, "[") && m.String() != j.String() {
		t.Fatalf("%+q: %+q, mellium says %+q", s, j, m)
	}
}

func TestRule33Idempotent(t *testing.T) {
	part := rapid.OneOf(rapid.StringMatching(`[a-zA-Z0-9.-]{1,12}`), rapid.StringN(1, 12, 40), rapid.StringMatching(`(xn--)?[a-z\-]{1,8}`),
		rapid.StringOf(rapid.RuneFrom([]rune("aA\u0130\u03A3\u0345\u0390\u1E9E\uFF21\u2126\u0301\u05D0\u06620.\u3002\u200D\u00B7l"))))
	rapid.Check(t, func(t *rapid.T) {
		s := part.Draw(t, "domain")
		if rapid.Bool().Draw(t, "with local") {
			s = part.Draw(t, "local") + "@" + s
		}
		if rapid.Bool().Draw(t, "with resource") {
			s += "/" + part.Draw(t, "resource")
		}
		check(t, s)
	})
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"a@b/c", "\u0390@\u00DF.de/\u00A0", "xn--bcher-kva.example", "[::1]/x", "a@b\u3002", "\u1FB4@x", "a@xn--zca"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { check(t, s) })
}

func BenchmarkParsePlain(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse("juliet@example.com/balcony"); err != nil {
			b.Fatal(err)
		}
	}
}

// A label has at most 63 octets in its ASCII form (RFC 7622 §3.2).
func TestRule33LongLabels(t *testing.T) {
	for domain, ok := range map[string]bool{
		strings.Repeat("x", 63) + ".example": true,
		strings.Repeat("x", 64) + ".example": false,
		strings.Repeat("ü", 40) + ".example": true,
		strings.Repeat("ü", 70) + ".example": false,
	} {
		if _, err := Parse("a@" + domain); (err == nil) != ok {
			t.Errorf("%s: %v", domain, err)
		}
	}
}
