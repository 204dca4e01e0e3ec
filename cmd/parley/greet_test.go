package main

import "testing"

// A domain that was added at run time is among those that a later start names.
func TestGreetingNamesWhatIsServed(t *testing.T) {
	dir := t.TempDir()
	s := serve(t, dir)
	must(t, "domain", "add", "added.localhost", "--data", s.data)
	s.stop()
	s = serve(t, dir)
	contains(t, s.said, "serves localhost, added.localhost from")
	contains(t, s.stop(), "domains=\"[localhost added.localhost]\"")
}
