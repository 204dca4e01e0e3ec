package register

import (
	"container/list"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"parley/plugins"
)

// maxAddresses bounds how many addresses are remembered; the one that has not
// tried for longest is forgotten.
const maxAddresses = 1 << 14

// limiter counts attempts by address, IPv6 by /64. A nil limiter allows all.
type limiter struct {
	clock   plugins.Clock
	perHour int

	mu     sync.Mutex // leaf
	known  map[netip.Prefix]*list.Element
	recent list.List // of *tries, the latest in front
}

type tries struct {
	from netip.Prefix
	rate *rate.Limiter
}

func newLimiter(perHour int, clock plugins.Clock) *limiter {
	return &limiter{clock: clock, perHour: perHour, known: map[netip.Prefix]*list.Element{}}
}

// allow counts one attempt and reports whether it may go on.
func (l *limiter) allow(addr netip.Addr) bool {
	if l == nil {
		return true
	}
	from := origin(addr)
	l.mu.Lock()
	defer l.mu.Unlock()
	el, ok := l.known[from]
	if !ok {
		for len(l.known) >= maxAddresses {
			oldest := l.recent.Back()
			delete(l.known, oldest.Value.(*tries).from)
			l.recent.Remove(oldest)
		}
		every := time.Hour / time.Duration(l.perHour)
		el = l.recent.PushFront(&tries{from, rate.NewLimiter(rate.Every(every), l.perHour)})
		l.known[from] = el
	}
	l.recent.MoveToFront(el)
	return el.Value.(*tries).rate.AllowN(l.clock.Now(), 1)
}

// origin is what one customer of a network usually gets.
func origin(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.Prefix(bits) // the zero prefix for an invalid address: they share one
	return p
}
