package muc

import (
	"fmt"
	"testing"

	"parley/parser/stanza"
)

// What somebody says again is known however much others have said meanwhile, and what a
// room knows is bounded.
func TestFault15WhatIsSaidAgainIsKnown(t *testing.T) {
	said := func(author string, n int) *stanza.Stanza {
		st, err := stanza.Parse(fmt.Appendf(nil, "<message id='%d'><body>%d</body><origin-id xmlns='urn:xmpp:sid:0' id='%d'/><occupant-id xmlns='urn:xmpp:occupant-id:0' id='%s'/></message>", n, n, n, author), stanza.NSClient, nil)
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	var r resent
	r.note(said("eve", 0))
	for n := range 3 * resentEach {
		for a := range 10 {
			r.note(said(fmt.Sprint("a", a), n))
		}
	}
	if !r.knows(said("eve", 0), "eve") || r.knows(said("eve", 0), "ann") || r.knows(said("a1", 0), "a1") {
		t.Error("the wrong ones are known")
	}
	for a := range 2 * resentMost {
		r.note(said(fmt.Sprint("b", a), 0))
	}
	if r.n < resentMost/2 || r.n > resentMost || len(r.seen) != r.n || len(r.of) > r.n {
		t.Errorf("%d, %d, %d are known", r.n, len(r.seen), len(r.of))
	}
	last := said("eve", 1)
	r.note(last)
	r.forget(last)
	if r.knows(last, "eve") {
		t.Error("what was refused is known")
	}
}
