package ledger_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
)

// pair is one direction between two accounts, by localpart.
type pair struct{ from, to string }

// entry is what a sender knows of a message.
type entry struct {
	pair
	n       int  // counts the pair's messages from 1, in send order
	sends   int  // more than one: it was sent again after its session was lost
	acked   bool // covered by an <a/>
	refused bool // answered with an error
	failed  bool // the server's log says that it was refused once; the answer may have been lost with a session
}

// sighting is one arrival of a message, or its row in an archive.
type sighting struct{ oid, stanzaID string }

// book is the ledger. Methods may be called from many goroutines.
type book struct {
	mu       sync.Mutex
	entries  map[string]*entry // by origin-id
	counts   map[pair]int
	acks     int
	refusals int
	resumed  int                   // sessions, by who never leaves: only a fault has parted them
	begun    map[string]int        // sessions that were not resumed, by device
	got      map[string][]sighting // by device, in the order of arrival
	archives map[string][]sighting // by account, in archive order
	seats    map[string][]seat     // by device: its stays in the room
	outs     int                   // times that a device heard it is not in the room any more
	strange  []string              // what needs no audit to be wrong
	news     chan struct{}         // closed at the next ack or refusal
}

func newBook() *book {
	return &book{
		entries: map[string]*entry{}, counts: map[pair]int{}, begun: map[string]int{},
		got: map[string][]sighting{}, archives: map[string][]sighting{}, seats: map[string][]seat{}, news: make(chan struct{}),
	}
}

// send gives the next message of a pair its origin-id.
func (b *book) send(p pair) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.counts[p]++
	n := b.counts[p]
	oid := fmt.Sprintf("%s-%s-%d", p.from, p.to, n)
	b.entries[oid] = &entry{pair: p, n: n, sends: 1}
	return oid
}

func (b *book) sentAgain(oid string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.entries[oid].sends++
}

func (b *book) acked(oid string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.entries[oid].acked = true
	b.acks++
	b.tell()
}

// refused notes an error; it has to say that it is for now (RFC 6120 §8.3.3.18).
func (b *book) refused(oid, typ, condition string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entries[oid]
	if e == nil {
		b.strange = append(b.strange, "an error for a message that was never sent: "+oid)
		return
	}
	// A room may be on its way from a node to another one, too; who could not enter it is
	// not acceptable.
	forNow := condition == "resource-constraint" || e.to == hall && slices.Contains([]string{"remote-server-timeout", "recipient-unavailable", "not-acceptable"}, condition)
	if typ != "wait" || !forNow {
		b.strange = append(b.strange, fmt.Sprintf("%s was refused with %s/%s", oid, typ, condition))
	}
	e.refused = true
	b.refusals++
	b.tell()
}

// refusedOnce notes what the server's log says. A sender who gives up a
// session never hears of what was refused in it, and sends it again: after
// what came behind it and was stored.
func (b *book) refusedOnce(oid string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.entries[oid]; e != nil {
		e.failed = true
	}
}

// tell wakes who waits for progress; b.mu is held.
func (b *book) tell() {
	close(b.news)
	b.news = make(chan struct{})
}

// received notes what came to a device of an account.
func (b *book) received(account, device string, s sighting) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e := b.entries[s.oid]
	if e != nil && e.to == hall {
		b.overheard(device, s)
		return
	}
	if e == nil || e.to != account {
		b.strange = append(b.strange, fmt.Sprintf("%s got %q, which is not theirs", device, s.oid))
		return
	}
	b.got[device] = append(b.got[device], s)
}

// archived notes a row of an account's archive.
func (b *book) archived(account string, s sighting) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if e := b.entries[s.oid]; e == nil || e.to != account && e.from != account {
		b.strange = append(b.strange, fmt.Sprintf("%q is in the archive of %s", s.oid, account))
		return
	}
	b.archives[account] = append(b.archives[account], s)
}

func (b *book) began(device string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.begun[device]++
	b.sat(device)
}

func (b *book) resumptions() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.resumed
}

// mark is a point in the book.
type mark struct{ acks, refusals int }

func (b *book) now() mark {
	b.mu.Lock()
	defer b.mu.Unlock()
	return mark{b.acks, b.refusals}
}

// await waits until something has happened that done recognises.
func (b *book) await(ctx context.Context, what string, done func(mark) bool) error {
	for {
		b.mu.Lock()
		m, news := mark{b.acks, b.refusals}, b.news
		b.mu.Unlock()
		if done(m) {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return fmt.Errorf("%s did not happen: %w", what, context.Cause(ctx))
		}
	}
}

// verdict is what the audit finds. All but the first three have to be none.
type verdict struct {
	sent, acked, refused int
	duplicates           int // arrivals beyond the first on a device, the same stanza-id
	late                 int // of those in the wrong order: sent again, and another device had it
	lost                 []string
	reordered            []string
	missed, astray       []string // what a device in the room did not get, or not in the archive's order
	repeated             int      // arrivals from the room beyond the first, the same stanza-id
	wrong                []string // foreign recipients, unclear errors, duplicates of another stanza-id
	ghosts, unseen       []string // by node: seen and not there, there and not seen
}

func (v verdict) bad() bool {
	return v.late+len(v.lost)+len(v.reordered)+len(v.missed)+len(v.astray)+len(v.wrong)+len(v.ghosts)+len(v.unseen) > 0
}

// audit checks the invariants. Names of devices begin with their account's.
func (b *book) audit(devices map[string][]string) verdict {
	b.mu.Lock()
	defer b.mu.Unlock()
	v := verdict{wrong: slices.Clone(b.strange)}
	arrived := map[string]map[string]bool{}
	for _, account := range slices.Sorted(maps.Keys(devices)) {
		arrived[account] = map[string]bool{}
		ids := map[string]string{} // an account's devices know a message by one stanza-id
		owners := map[string]int{} // how many devices got it
		for _, d := range devices[account] {
			once := map[string]bool{}
			for _, s := range b.got[d] {
				arrived[account][s.oid] = true
				if !once[s.oid] {
					once[s.oid] = true
					owners[s.oid]++
				}
			}
		}
		for _, d := range devices[account] {
			b.sequence(&v, d, b.got[d], ids, owners)
		}
	}
	kept := map[string]map[string]bool{}
	for _, account := range slices.Sorted(maps.Keys(b.archives)) {
		kept[account] = map[string]bool{}
		rows := b.archives[account]
		b.sequence(&v, "the archive of "+account, rows, map[string]string{}, nil)
		for _, s := range rows {
			if kept[account][s.oid] {
				v.wrong = append(v.wrong, fmt.Sprintf("%s is in the archive of %s twice (sent %d times)", s.oid, account, b.entries[s.oid].sends))
			}
			kept[account][s.oid] = true
		}
	}
	b.order(&v)
	for oid, e := range b.entries {
		v.sent++
		if e.refused {
			v.refused++
			continue
		}
		if !e.acked {
			continue
		}
		v.acked++
		if missing := absent(kept[e.from][oid] || e.to == hall, kept[e.to][oid], arrived[e.to][oid] || e.to == hall); missing != "" {
			v.lost = append(v.lost, oid+": "+missing)
		}
	}
	slices.Sort(v.lost)
	return v
}

func absent(sender, recipient, arrived bool) (missing string) {
	for _, c := range []struct {
		there bool
		where string
	}{{sender, "not in the sender's archive "}, {recipient, "not in the recipient's archive "}, {arrived, "not received"}} {
		if !c.there {
			missing += c.where
		}
	}
	return missing
}

// sequence checks that first sightings are in send order and that later ones
// are the same message. What was refused has no place in the order: its
// recipient may get it later, or never. What was sent again, and another device
// had, is counted apart when it comes late to this one, as a hint at the cause; it
// fails all the same. owners is nil for
// archives, which know no such excuse.
func (b *book) sequence(v *verdict, where string, seen []sighting, ids map[string]string, owners map[string]int) {
	last := map[pair]int{}
	here := map[string]bool{}
	for _, s := range seen {
		e := b.entries[s.oid]
		if id, ok := ids[s.oid]; ok && id != s.stanzaID {
			v.wrong = append(v.wrong, fmt.Sprintf("%s: %s came under two stanza-ids (sent %d times)", where, s.oid, e.sends))
		}
		ids[s.oid] = s.stanzaID
		if here[s.oid] {
			v.duplicates++
			continue
		}
		here[s.oid] = true
		if e.refused || e.failed {
			continue
		}
		if e.n < last[e.pair] && e.sends > 1 && owners[s.oid] > 1 {
			v.late++
			continue
		}
		if e.n < last[e.pair] {
			v.reordered = append(v.reordered, fmt.Sprintf("%s: %s after number %d", where, s.oid, last[e.pair]))
		}
		last[e.pair] = max(last[e.pair], e.n)
	}
}

// some shows the first few of many.
func some(list []string) string {
	return fmt.Sprintf("%d: %q", len(list), list[:min(len(list), 5)])
}

func median[T cmp.Ordered](list []T) (m T) {
	if len(list) == 0 {
		return m
	}
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}

// worst is 0 of none.
func worst[T cmp.Ordered](list []T) (m T) {
	for _, v := range list {
		m = max(m, v)
	}
	return m
}
