package stream

import (
	"crypto/rand"
	"crypto/tls"
	"time"
)

// tickets are the keys of session tickets, the newest first.
type tickets struct {
	keys [][32]byte
	next time.Time // when there is to be a fresh one
}

// How long a key is used for new tickets, and how many are there in all: a ticket
// is good for seven days at most (RFC 8446 §4.6.1).
const (
	ticketKeyFor = 24 * time.Hour
	ticketKeys   = 8
)

// renew makes a key when it is time for one.
func (t *tickets) renew(now time.Time, all ...*tls.Config) {
	if now.Before(t.next) {
		return
	}
	var fresh [32]byte
	_, _ = rand.Read(fresh[:]) // never fails
	t.keys = append([][32]byte{fresh}, t.keys[:min(len(t.keys), ticketKeys-1)]...)
	t.next = now.Add(ticketKeyFor)
	for _, cfg := range all {
		cfg.SetSessionTicketKeys(t.keys)
	}
}
