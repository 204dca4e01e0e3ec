package muc

import "time"

// bucket is how much of a Rate is left. The zero value with a rate is full.
type bucket struct {
	rate Rate
	free time.Time // when it is, or was, full
}

// take reports whether one more may pass.
func (b *bucket) take(now time.Time) bool {
	if b.rate.Every <= 0 {
		return true
	}
	if b.free.Before(now) {
		b.free = now
	}
	if b.free.Sub(now) > time.Duration(b.rate.Burst-1)*b.rate.Every {
		return false
	}
	b.free = b.free.Add(b.rate.Every)
	return true
}

// limiter has a bucket for each key, and forgets those that are full.
type limiter[K comparable] struct {
	rate    Rate
	buckets map[K]*bucket
}

// limited is how many keys a limiter remembers.
const limited = 1024

func (l *limiter[K]) take(key K, now time.Time) bool {
	b := l.buckets[key]
	if b == nil {
		if l.buckets == nil {
			l.buckets = map[K]*bucket{}
		}
		if len(l.buckets) >= limited {
			l.forget(now)
		}
		b = &bucket{rate: l.rate}
		l.buckets[key] = b
	}
	return b.take(now)
}

// forget removes what says nothing any more; when nothing is, everybody begins
// anew.
func (l *limiter[K]) forget(now time.Time) {
	for k, b := range l.buckets {
		if !b.free.After(now) {
			delete(l.buckets, k)
		}
	}
	if len(l.buckets) >= limited {
		clear(l.buckets)
	}
}
