package count

import (
	"testing"
	"time"
)

func TestLane(t *testing.T) {
	for _, c := range []struct {
		name string
		sent int
		came []int
		want Faults
	}{
		{"all in order", 4, []int{1, 2, 3, 4}, Faults{}},
		{"nothing", 3, nil, Faults{Lost: 3}},
		{"the end is missing", 4, []int{1, 2}, Faults{Lost: 2}},
		{"a gap", 4, []int{1, 4}, Faults{Lost: 2}},
		{"twice", 3, []int{1, 2, 2, 3}, Faults{Duplicated: 1}},
		{"twice, later", 3, []int{1, 2, 3, 1}, Faults{Duplicated: 1}},
		{"late", 3, []int{1, 3, 2}, Faults{Reordered: 1}},
		{"late and twice", 3, []int{1, 3, 2, 2}, Faults{Reordered: 1, Duplicated: 1}},
		{"backwards", 3, []int{3, 2, 1}, Faults{Reordered: 2}},
		{"everything at once", 6, []int{2, 2, 5, 4}, Faults{Lost: 3, Duplicated: 1, Reordered: 1}},
	} {
		var l Lane
		for range c.sent {
			l.Send()
		}
		for _, n := range c.came {
			l.Receive(n)
		}
		if got := l.Faults(); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
		if c.want.Any() != l.Faults().Any() {
			t.Errorf("%s: Any is %v", c.name, l.Faults().Any())
		}
		if want := c.sent - c.want.Lost; l.Got() != want || l.Outstanding() != c.want.Lost {
			t.Errorf("%s: %d came, %d outstanding; want %d, %d", c.name, l.Got(), l.Outstanding(), want, c.want.Lost)
		}
	}
}

func TestQuantile(t *testing.T) {
	var x Times
	if x.Quantile(0.5) != 0 {
		t.Error("nothing has a median")
	}
	for i := 100; i > 0; i-- {
		x.Add(time.Duration(i))
	}
	for q, want := range map[float64]time.Duration{0: 1, 0.5: 50, 0.95: 95, 0.99: 99, 1: 100} {
		if got := x.Quantile(q); got != want {
			t.Errorf("quantile %v is %d, want %d", q, got, want)
		}
	}
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 2, 3}, 2.5}} {
		if got := Median(c.in); got != c.want {
			t.Errorf("median of %v is %v", c.in, got)
		}
	}
}
