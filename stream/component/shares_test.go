package component

import "testing"

func TestReliability15Shares(t *testing.T) {
	s := NewShares(2)
	for i, want := range []bool{true, true, false} {
		if got := s.Take("a"); got != want {
			t.Errorf("the %d. of a: %v", i+1, got)
		}
	}
	if !s.Take("b") {
		t.Error("what a has is taken from b")
	}
	s.Give("a")
	if !s.Take("a") || s.Take("a") {
		t.Error("what a gives back it may take once")
	}
	for _, who := range []string{"a", "a", "b"} {
		s.Give(who)
	}
	if len(s.had) != 0 {
		t.Errorf("it remembers %v", s.had)
	}
}
