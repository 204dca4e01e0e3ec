package archive

import "testing"

// What is sent again while the first commit is under way shares its id: it is
// stored once, whichever of the commits comes through.
func TestSentAgainWhileItIsBeingStored(t *testing.T) {
	k := resentKey{1, 2}
	for name, c := range map[string]struct {
		first, second bool
		want          int64
	}{
		"both":   {true, true, 7},
		"first":  {true, false, 7},
		"second": {false, true, 7},
		"none":   {false, false, -7},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := newResent()
			if err != nil {
				t.Fatal(err)
			}
			if _, ok := r.underWay(k); ok {
				t.Fatal("under way before it has begun")
			}
			if id := r.begin(k, 7); id != 7 {
				t.Fatalf("id %d", id)
			}
			if id, ok := r.underWay(k); !ok || id != 7 {
				t.Fatalf("the second one gets %d, %v", id, ok)
			}
			counted := r.landed(k, c.first)
			if _, ok := r.underWay(k); !ok {
				t.Fatal("landed with one still under way")
			}
			if r.landed(k, c.second) == counted && c.want > 0 {
				t.Errorf("both count, or none: %v", counted)
			}
			r.landed(k, false) // of the look just now
			if id, _ := r.seen.GetIfPresent(k); id != c.want {
				t.Errorf("remembers %d, want %d", id, c.want)
			}
			if len(r.flying) > 0 {
				t.Error("kept for ever")
			}
		})
	}
}

// Two that begin at the same moment share the first one's id.
func TestTwoBeginAtOnce(t *testing.T) {
	r, err := newResent()
	if err != nil {
		t.Fatal(err)
	}
	k := resentKey{1, 2}
	if a, b := r.begin(k, 7), r.begin(k, 8); a != 7 || b != 7 {
		t.Errorf("%d and %d", a, b)
	}
}

// What this process could not store another one may have stored since.
func TestFoundElsewhereAfterItFailedHere(t *testing.T) {
	for name, c := range map[string]struct{ known, want int64 }{
		"nothing":         {0, 7},
		"refused here":    {-5, 7},
		"refused, there":  {-7, -7},
		"stored, a newer": {9, 9},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := newResent()
			if err != nil {
				t.Fatal(err)
			}
			k := resentKey{1, 2}
			if c.known != 0 {
				r.seen.Set(k, c.known)
			}
			r.found(k, 7)
			if id, _ := r.seen.GetIfPresent(k); id != c.want {
				t.Errorf("remembers %d, want %d", id, c.want)
			}
		})
	}
}
