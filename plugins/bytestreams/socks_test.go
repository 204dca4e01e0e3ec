package bytestreams

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"parley/parser/jid"
	"parley/plugins"
)

// dialogue is what one side says and hears.
type dialogue struct {
	io.Reader
	bytes.Buffer
}

func (d *dialogue) Read(b []byte) (int, error) { return d.Reader.Read(b) }

const someHash = "416781edf1ae50bad01cb8509ba35b43952bc345"

// connectTo is a whole greeting.
func connectTo(name string, port string) string {
	return "\x05\x01\x00" + "\x05\x01\x00\x03" + string(rune(len(name))) + name + port
}

// What a bytestream begins with, and what is refused (RFC 1928 §3, §4 and §6,
// XEP-0065 §6.3.2): no host is ever connected to.
func TestGreet(t *testing.T) {
	refused := func(rep string) string { return "\x05\x00" + "\x05" + rep + "\x00\x01\x00\x00\x00\x00\x00\x00" }
	for name, c := range map[string]struct{ says, hears, rest string }{
		"a bytestream":    {connectTo(someHash, "\x00\x00") + "more", "\x05\x00", "more"},
		"capital letters": {connectTo(strings.ToUpper(someHash), "\x00\x00"), "\x05\x00", ""},
		"more methods":    {"\x05\x03\x02\x00\x01" + connectTo(someHash, "\x00\x00")[3:], "\x05\x00", ""},
		"a password":      {"\x05\x01\x02", "\x05\xff", ""},
		"SOCKS4":          {"\x04\x01\x00\x50\x7f\x00\x00\x01\x00", "", ""},
		"a host":          {connectTo("www.example.org", "\x00\x50"), refused("\x02"), ""},
		"a long host":     {connectTo(strings.Repeat("x", 40), "\x00\x00"), refused("\x02"), ""},
		"a port":          {connectTo(someHash, "\x00\x50"), refused("\x02"), ""},
		"an address":      {"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50", refused("\x08"), ""},
		"an IPv6 address": {"\x05\x01\x00\x05\x01\x00\x04" + strings.Repeat("\x00", 18), refused("\x08"), ""},
		"BIND":            {"\x05\x01\x00\x05\x02\x00\x03\x28" + someHash + "\x00\x00", refused("\x07"), ""},
		"UDP":             {"\x05\x01\x00\x05\x03\x00\x03\x28" + someHash + "\x00\x00", refused("\x07"), ""},
		"nothing":         {"", "", ""},
		"half of it":      {connectTo(someHash, "")[:30], "\x05\x00", ""},
	} {
		d := &dialogue{Reader: strings.NewReader(c.says)}
		r, err := greet(d)
		good := c.hears == "\x05\x00" && name != "half of it"
		if good != (err == nil) || good && r.destination != someHash {
			t.Errorf("%s: %q, %v", name, r.destination, err)
		}
		if got := d.String(); !strings.HasPrefix(got, c.hears) || len(got) != len(c.hears) && len(c.hears) < 4 {
			t.Errorf("%s: hears %q, want %q", name, got, c.hears)
		}
		if rest, _ := io.ReadAll(d.Reader); good && string(rest) != c.rest {
			t.Errorf("%s: %q is left, want %q", name, rest, c.rest)
		}
	}
	if got := (request{someHash, []byte(strings.ToUpper(someHash))}).reply(repOK); string(got) != "\x05\x00\x00\x03\x28"+strings.ToUpper(someHash)+"\x00\x00" {
		t.Errorf("%q", got)
	}
}

// Whatever comes, a destination is a hash, and what is behind it is left.
func FuzzGreet(f *testing.F) {
	f.Add([]byte(connectTo(someHash, "\x00\x00")))
	f.Add([]byte(connectTo("www.example.org", "\x00\x50")))
	f.Add([]byte("\x05\xff\x00"))
	f.Fuzz(func(t *testing.T, says []byte) {
		in := bytes.NewReader(says)
		d := &dialogue{Reader: in}
		r, err := greet(d)
		if d.Len() > 2+10 {
			t.Errorf("says %q", d.String())
		}
		if err != nil {
			return
		}
		if len(r.destination) != hashed || strings.Trim(r.destination, "0123456789abcdef") != "" {
			t.Errorf("destination %q", r.destination)
		}
		if len(says)-in.Len() != 2+int(says[1])+5+hashed+2 {
			t.Errorf("%d of %d are left", in.Len(), len(says))
		}
	})
}

// Accounts of this server use it, and nobody else (XEP-0065 §4).
func TestMay(t *testing.T) {
	p := &proxy{env: plugins.Env{Domains: plugins.NewDomains("one.test")}}
	for who, want := range map[string]bool{"romeo@one.test/r": true, "one.test": false, "a@two.test/r": false, "a@sub.one.test": false, "x.one.test": false} {
		at, err := jid.Parse(who)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.may(at); got != want {
			t.Errorf("%s: %v", who, got)
		}
	}
}
