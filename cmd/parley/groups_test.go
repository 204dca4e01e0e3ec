package main

import (
	"strings"
	"testing"
)

// Groups are made, changed and removed without a server as well, and are what they were
// afterwards.
func TestGroups(t *testing.T) {
	data := t.TempDir()
	group := func(args ...string) string {
		return must(t, append(append([]string{"group"}, args...), "--data", data)...)
	}
	for _, name := range []string{"romeo", "juliet", "mercutio"} {
		must(t, "account", "add", name+"@localhost", "--generate", "--data", data)
	}
	group("add", "localhost", "Verona", "romeo@localhost", "juliet@localhost=Juliet C.")
	group("add", "LOCALHOST", "All/of us", "--everyone")
	group("set", "localhost", "All/of us", "--everybody=true")
	out := group("members", "localhost", "Verona", "--add", "mercutio@localhost", "--remove", "romeo@localhost")
	if !strings.Contains(out, "Juliet C.") || !strings.Contains(out, "mercutio@") || strings.Contains(out, "romeo@") {
		t.Errorf("members are\n%s", out)
	}
	if out = group("members", "localhost", "Verona", "--add", "juliet@localhost"); !strings.Contains(out, "Juliet C.") {
		t.Errorf("who is added again has lost its name:\n%s", out)
	}
	must(t, "account", "delete", "mercutio@localhost", "--data", data)
	out = group("list")
	for _, want := range []string{"Verona     1 ", "All/of us  2 (everyone)  everybody"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	out = group("remove", "localhost", "All/of us")
	if strings.Contains(out, "All/of us") {
		t.Errorf("removed, and there:\n%s", out)
	}
	for want, args := range map[string][]string{
		"there is no such account":   {"add", "localhost", "X", "nobody@localhost"},
		"not served here":            {"add", "elsewhere.example", "X"},
		"there is a group":           {"add", "localhost", "Verona"},
		"there is no group":          {"remove", "localhost", "X"},
		"is no member":               {"members", "localhost", "Verona", "--remove", "romeo@localhost"},
		"--everybody=false":          {"set", "localhost", "Verona"},
		"not the address of an acco": {"members", "localhost", "Verona", "--add", "romeo"},
	} {
		if _, _, err := parley(t, "", append(append([]string{"group"}, args...), "--data", data)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", args, err, want)
		}
	}
}
