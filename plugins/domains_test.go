package plugins

import (
	"errors"
	"slices"
	"testing"
)

// Services follow the domains, and a domain does not take a service's address.
func TestDomains(t *testing.T) {
	d := NewDomains("a.example")
	rooms, err := d.Services("Rooms")
	if err != nil {
		t.Fatal(err)
	}
	serves := func(host, want string, wanted bool) {
		t.Helper()
		if got, ok := rooms.Of(host); ok != wanted || ok && got != want {
			t.Errorf("%s is a service of %q, %v", host, got, ok)
		}
		if d.Serve(host) != wanted {
			t.Errorf("%s is a service of ours: %v", host, !wanted)
		}
		if at, ok := rooms.At(want); ok != wanted || ok && at.String() != host {
			t.Errorf("the service of %s is %s, %v", want, at, ok)
		}
	}
	serves("rooms.a.example", "a.example", true)
	serves("rooms.b.example", "b.example", false)
	var heard [][]string
	stop := d.Watch(func(come, gone []string) { heard = append(heard, come, gone) })
	d.set([]string{"a.example", "b.example"})
	d.set([]string{"a.example", "b.example"})
	serves("rooms.b.example", "b.example", true)
	d.set([]string{"b.example"})
	serves("rooms.a.example", "a.example", false)
	stop()
	d.set([]string{"c.example"})
	if want := [][]string{{"b.example"}, nil, nil, {"a.example"}}; !slices.EqualFunc(heard, want, slices.Equal) {
		t.Errorf("heard %v", heard)
	}
	if err := d.check([]string{"c.example", "rooms.c.example"}); !errors.Is(err, ErrDomain) {
		t.Errorf("%v", err)
	}
	if err := d.check([]string{"c.example", "rooms.a.example"}); err != nil {
		t.Errorf("%v", err)
	}
	if _, err := NewDomains("c.example", "rooms.c.example").Services("rooms"); err == nil {
		t.Error("a domain that is a service")
	}
	var none *Domains
	if none.Has("a.example") || none.List() != nil {
		t.Error("nothing has domains")
	}
}

// Without a prefix there is no service, also where there are no domains yet.
func TestServiceWithoutPrefix(t *testing.T) {
	var none *Domains
	s, err := none.Services("")
	if err != nil {
		t.Fatal(err)
	}
	if domain, ok := s.Of(".example"); ok {
		t.Errorf("it is of %q", domain)
	}
	if s.prefix != "" {
		t.Errorf("its prefix is %q", s.prefix)
	}
}
