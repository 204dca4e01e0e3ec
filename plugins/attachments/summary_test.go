package attachments

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"parley/parser/stanza"
)

// Whatever people attach and take back, in whatever order, the summary is that of
// what there is.
func TestSummaryIsOfWhatThereIs(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var sum *stanza.Element
	now := map[int]*stanza.Element{}
	for i := range 2000 {
		who := r.IntN(8)
		var is *stanza.Element
		if r.IntN(4) > 0 {
			is = stanza.El(NS, "attachments")
			if r.IntN(2) == 0 {
				is.Add(stanza.El(NS, "noticed"))
			}
			all := stanza.El(NS, "reactions")
			for range r.IntN(4) {
				all.Add(stanza.El(NS, "reaction").AddText(fmt.Sprint("r", r.IntN(5))))
			}
			is.Add(all)
		}
		sum = count(sum, now[who], is)
		now[who] = is
		noticed, each := 0, map[string]int{}
		for _, el := range now {
			if el == nil {
				continue
			}
			if el.Child(NS, "noticed") != nil {
				noticed++
			}
			for _, text := range reactions(el) {
				each[text]++
			}
		}
		got := parse(sum)
		if got.noticed != noticed || len(got.reactions) != len(each) {
			t.Fatalf("step %d: %+v, want %d noticed and %v", i, got, noticed, each)
		}
		for _, x := range got.reactions {
			if each[x.text] != x.count {
				t.Fatalf("step %d: %+v, want %v", i, got, each)
			}
		}
		if (sum == nil) != (noticed == 0 && len(each) == 0) {
			t.Fatalf("step %d: an empty summary is none", i)
		}
	}
}

// What somebody attaches does not make a summary larger than its bounds.
func TestReliability18SummaryHasBounds(t *testing.T) {
	var sum *stanza.Element
	for i := range 400 {
		all := stanza.El(NS, "reactions")
		for k := range 100 {
			all.Add(stanza.El(NS, "reaction").AddText(fmt.Sprint(i, "-", k)))
		}
		sum = count(sum, nil, stanza.El(NS, "attachments").Add(all))
	}
	if n := len(parse(sum).reactions); n != maxDistinct {
		t.Fatalf("%d reactions, want %d", n, maxDistinct)
	}
}
