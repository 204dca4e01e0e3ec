package plugins

import (
	"errors"
	"testing"
)

// What waits is written once; what changes meanwhile, or cannot be written, waits on; what
// is forgotten is not written again.
func TestWaiting(t *testing.T) {
	w := Waiting[string, int]{Most: 2}
	put := func(k string, v int) bool { return w.Put(k, func(int, bool) int { return v }) }
	if !put("a", 1) || !put("b", 1) || put("c", 1) || !put("a", 2) {
		t.Error("two may wait, however often they change")
	}
	broken := errors.New("no database")
	if err := w.Write(func(map[string]int) error { return broken }); !errors.Is(err, broken) || w.Len() != 2 {
		t.Errorf("%v: %d wait", err, w.Len())
	}
	err := w.Write(func(going map[string]int) error {
		if going["a"] != 2 || going["b"] != 1 {
			t.Errorf("%v goes", going)
		}
		put("b", 3)
		return nil
	})
	if v, ok := w.Get("b"); err != nil || w.Len() != 1 || !ok || v != 3 {
		t.Errorf("%v: %d wait, %d", err, w.Len(), v)
	}
	if err := w.Forget(func(k string) bool { return k == "b" }, func() error { return broken }); !errors.Is(err, broken) || w.Len() != 0 {
		t.Errorf("%v: %d wait", err, w.Len())
	}
	if err := w.Write(func(map[string]int) error { return broken }); err != nil {
		t.Error("nothing is written of nothing")
	}
}
