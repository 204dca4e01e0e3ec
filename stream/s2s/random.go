package s2s

import (
	"crypto/rand"
	"encoding/binary"
	"time"
)

// random is a number from 0 to n-1; n is far from the end of its range.
func random(n int) int {
	var b [8]byte
	_, _ = rand.Read(b[:])                                   // never fails (crypto/rand)
	return int(binary.LittleEndian.Uint64(b[:]) % uint64(n)) //nolint:gosec // n is positive, and the rest is less
}

// jitter is half of d, and up to as much again.
func jitter(d time.Duration) time.Duration { return d/2 + time.Duration(random(int(d/2))) }
