package pubsub

import (
	"fmt"
	"strconv"
	"sync"
	"testing"

	"parley/parser/jid"
	"parley/parser/stanza"
)

// An item that counts others is right whenever somebody looks, however many
// change them at the same time, on both databases.
func TestSumIsWrittenWithWhatItCounts(t *testing.T) {
	const nsCount = "urn:example:count"
	each(t, func(t *testing.T, c *component, _ *hand) {
		node := func(name string, base *Node) *Node {
			n := c.store.fresh(Address{romeo, name}, romeo, defaultSettings(false)).derive(base)
			if _, err := c.store.publish(t.Context(), &write{node: n, fresh: true, rows: &Rows{}, limits: &c.cfg.Limits}); err != nil {
				t.Fatal(err)
			}
			return n
		}
		base := node("base", nil)
		n := node("counted", base)
		number := func(el *stanza.Element) int {
			if el == nil {
				return 0
			}
			i, _ := strconv.Atoi(el.Text())
			return i
		}
		sum := &Sum{Node: "sum", ID: "all", Base: base, Set: func(s *Settings) { s.MaxItems = Max }, Count: func(sum, was, is *stanza.Element) *stanza.Element {
			i := number(sum)
			if was != nil {
				i--
			}
			if is != nil {
				i++
			}
			if i == 0 {
				return nil
			}
			return stanza.El(nsCount, "count").AddText(strconv.Itoa(i))
		}}
		const people, turns = 8, 7
		var all sync.WaitGroup
		for who := range people {
			all.Go(func() {
				id := fmt.Sprint("p", who)
				for turn := range turns {
					for try := 0; ; try++ {
						m, err := c.summing(t.Context(), n, sum)
						if err != nil {
							t.Error(err)
							return
						}
						w := &write{node: n, rows: &Rows{}, limits: &c.cfg.Limits, sum: m}
						if turn%3 == 2 {
							_, err = c.store.retract(t.Context(), w, []string{id}, true)
						} else {
							it := &Item{ID: id, Publisher: jid.MustParse(id + "@localhost"), Payload: stanza.El(nsCount, "one")}
							it.size = len(it.bytes())
							w.items = []*Item{it}
							_, err = c.store.publish(t.Context(), w)
						}
						if err == nil {
							break
						}
						if !raced(err, false) || try > 100 {
							t.Error(err)
							return
						}
						c.dir.single.Drop(m.node.Address)
					}
				}
			})
		}
		all.Wait()
		c.dir.single.Drop(Address{romeo, "sum"})
		have, err := c.Items(t.Context(), n.Address, Query{})
		if err != nil {
			t.Fatal(err)
		}
		page, err := c.Items(t.Context(), Address{romeo, "sum"}, Query{})
		if err != nil {
			t.Fatal(err)
		}
		got := 0
		if len(page.Items) > 0 {
			got = number(page.Items[0].Payload)
		}
		if got != people || got != len(have.Items) {
			t.Fatalf("the sum says %d, there are %d", got, len(have.Items))
		}
		if sums, err := c.dir.node(t.Context(), Address{romeo, "sum"}); err != nil || sums.Base != "base" {
			t.Fatalf("%+v, %v: want a node that derives from base", sums, err)
		}
		if listed, err := c.Nodes(t.Context(), romeo); err != nil || len(listed) != 1 {
			t.Fatalf("%d nodes are listed, %v; want base alone", len(listed), err)
		}
	})
}
