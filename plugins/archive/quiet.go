package archive

import (
	"sync"

	"parley/storage"
)

// quiet are the archives in which nothing waits, so that most logins need not
// ask the database. Only the one process that writes to it can know that:
// with SQLite.
//
//	ask     nothing waits; or a look begins, unless a row is being stored
//	found   the look found nothing, and no row was begun to be stored meanwhile
//	stores  a row is about to be stored; settled follows, after the commit
type quiet struct {
	sole bool

	mu      sync.Mutex
	state   map[int64]uint64 // by owner: 0 nothing waits, else the look that is under way
	storing map[int64]int    // rows by owner; bounded by the stanzas under way
	looks   uint64
}

func newQuiet(db storage.DB) *quiet {
	return &quiet{sole: db.Dialect() == storage.SQLite, state: map[int64]uint64{}, storing: map[int64]int{}}
}

// ask reports whether nothing waits for the owner; if that is not known, look
// is for found.
func (q *quiet) ask(owner int64) (nothing bool, look uint64) {
	if !q.sole {
		return false, 0
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if s, ok := q.state[owner]; ok && s == 0 {
		return true, 0
	}
	if q.storing[owner] > 0 {
		return false, 0
	}
	for other := range q.state { // any
		if len(q.state) < cachedOwners {
			break
		}
		delete(q.state, other)
	}
	q.looks++
	q.state[owner] = q.looks
	return false, q.looks
}

// found ends a look.
func (q *quiet) found(owner int64, look uint64, nothing bool) {
	if look == 0 {
		return
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.state[owner] != look:
	case nothing:
		q.state[owner] = 0
	default:
		delete(q.state, owner)
	}
}

// stores is called before a row can be in the database.
func (q *quiet) stores(owner int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.state, owner)
	q.storing[owner]++
}

// settled is called when it is there, or never will be.
func (q *quiet) settled(owner int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.storing[owner]--; q.storing[owner] == 0 {
		delete(q.storing, owner)
	}
}
