package accounts

import (
	"testing"

	"parley/parser/jid"
)

// A skeleton is its own skeleton, else two names could be alike or not,
// depending on how one asks.
func FuzzSkeleton(f *testing.F) {
	for _, s := range []string{"paul", "раul", "rnodern", "josé", "李雷", "vvv", "01ı"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		j, err := jid.New(name, "capulet.example", "")
		if err != nil {
			return
		}
		s := Skeleton(j.Local())
		if again := Skeleton(s); again != s {
			t.Fatalf("skeleton of %q is %q, and of that %q", j.Local(), s, again)
		}
	})
}
