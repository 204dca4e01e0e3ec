package stanza

import (
	"strings"
	"testing"
	"unsafe"
)

const testHeader = `<?xml version='1.0'?><stream:stream to='example.org' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>`

// chatMessage is 404 bytes of what clients really send.
func chatMessage() []byte {
	m := `<message type='chat' to='romeo@montague.example' id='5f0a2c1e-8f1d-4c59-9f3b-7b8f0f6a1d2c' xml:lang='en'>` +
		`<body>TEXT</body><active xmlns='http://jabber.org/protocol/chatstates'/><request xmlns='urn:xmpp:receipts'/>` +
		`<origin-id xmlns='urn:xmpp:sid:0' id='5f0a2c1e-8f1d-4c59-9f3b-7b8f0f6a1d2c'/></message>`
	text := "Wherefore art thou, Romeo? Deny thy father &amp; refuse thy name; " + strings.Repeat("x", 404)
	return []byte(strings.Replace(m, "TEXT", text[:404-len(m)+len("TEXT")], 1))
}

func BenchmarkReaderChat(b *testing.B) {
	message := chatMessage()
	if len(message) != 404 {
		b.Fatal(len(message))
	}
	r := NewReader(Stream, Limits{})
	r.Feed([]byte(testHeader))
	if _, err := r.Next(); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	for b.Loop() {
		r.Feed(message)
		if tok, err := r.Next(); err != nil || len(tok.Raw) != len(message) {
			b.Fatal(tok, err)
		}
		if _, err := r.Next(); err != ErrMore {
			b.Fatal(err)
		}
	}
}

// The chat message must not cost more than its copy, and an idle Reader little (house.md: an idle session is a few kilobytes).
func TestReaderFootprint(t *testing.T) {
	message := chatMessage()
	r := NewReader(Stream, Limits{})
	r.Feed([]byte(testHeader))
	r.Next()
	allocs := testing.AllocsPerRun(100, func() {
		r.Feed(message)
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
		r.Next()
	})
	if allocs > 1 {
		t.Errorf("%v allocations for a message, want its copy alone", allocs)
	}
	idle := int(unsafe.Sizeof(*r)) + len(r.root.prefixes)*int(unsafe.Sizeof(Prefix{}))
	if r.data != nil || r.saved != nil || idle > 300 {
		t.Errorf("an idle Reader holds %d bytes, data %v, saved %v", idle, r.data, r.saved)
	}
}
