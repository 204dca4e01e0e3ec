package bosh

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"parley/parser/stanza"
)

// Clients leave the namespace of stanzas out (XEP-0206 §3), or declare prefixes on the body.
func TestDocuments(t *testing.T) {
	b := newBodyReader(strings.NewReader(" <body rid='7' sid='s' xmlns='"+nsBind+"' xmlns:p='urn:p'><iq a='1'><p:x/></iq><message xmlns='jabber:client'/></body> "), 1<<16)
	q, err := b.head()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.rest(q, 1<<16); err != nil {
		t.Fatal(err)
	}
	for i, want := range []stanza.Name{{Space: stanza.NSClient, Local: "iq"}, {Space: stanza.NSClient, Local: "message"}} {
		el, err := stanza.ParseElement(q.frames[i], "")
		if err != nil || el.Name != want {
			t.Errorf("%s: %v", q.frames[i], err)
		}
	}
}

// Whatever comes, it is refused with a condition, or its elements are documents
// that say the same however the body was cut.
func FuzzBody(f *testing.F) {
	for _, s := range []string{
		"<body rid='1' to='localhost' xmlns='" + nsBind + "'/>",
		"<?xml version='1.0'?>\n<body rid='7' sid='s' xmlns='" + nsBind + "' xmlns:xmpp='" + nsXMPP + "' xmpp:restart='true'><iq/><a xmlns='b'>c</a></body>",
		"<b:body xmlns:b='" + nsBind + "' rid='7'><b:iq/></b:body>", "<body", "", "\xff\xfe", "<body xmlns='" + nsBind + "' rid='1' pause='-1'>x</body>",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		q, err := readBody(body)
		var c condition
		if err != nil {
			if !errors.As(err, &c) || !bytes.Contains(terminated(c), []byte(c)) {
				t.Fatalf("%v", err)
			}
			return
		}
		if q.rid == 0 || q.rid > maxRID {
			t.Fatalf("rid %d", q.rid)
		}
		if _, err := stanza.ParseElement(q.opening(), ""); err != nil {
			t.Fatalf("%s: %v", q.opening(), err)
		}
		r := response{payload: q.frames}
		r.set("from", q.to)
		rd := stanza.NewReader(stanza.Framed, stanza.Limits{Bytes: 1 << 20, Depth: 1002, Attrs: 1002})
		rd.Feed(append([]byte(nil), terminated(badRequest)...))
		if _, err := rd.Next(); err != nil {
			t.Fatal(err)
		}
		head := response{}
		head.set("from", q.to)
		if _, err := stanza.ParseElement(head.render(), ""); err != nil {
			t.Fatalf("%s: %v", head.render(), err)
		}
	})
}

func readBody(body []byte) (*request, error) {
	b := newBodyReader(bytes.NewReader(body), 1<<16)
	q, err := b.head()
	if err != nil {
		return nil, err
	}
	return q, b.rest(q, 1<<16)
}
