package plugins

import (
	"maps"
	"sync"
)

// Waiting is what is known and soon written, one value for each key: many changes of one
// cost one row. Its zero value is empty. What is beyond Most is not taken.
type Waiting[K, V comparable] struct {
	Most int // keys; 0: none

	writing sync.Mutex // held while the table is written; before mu
	mu      sync.Mutex // leaf
	waits   map[K]V
}

// Put changes what waits under a key: merge gets what is there, the zero value for
// nothing. False: there is no room for one more.
func (w *Waiting[K, V]) Put(k K, merge func(before V, there bool) V) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	before, there := w.waits[k]
	if !there && len(w.waits) >= w.Most { // the database does not take them
		return false
	}
	if w.waits == nil {
		w.waits = map[K]V{}
	}
	w.waits[k] = merge(before, there)
	return true
}

// Get returns what waits under a key.
func (w *Waiting[K, V]) Get(k K) (V, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	v, ok := w.waits[k]
	return v, ok
}

// Len is how many wait.
func (w *Waiting[K, V]) Len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.waits)
}

// Write gives commit what waits. What it fails on, and what has changed meanwhile, goes on
// waiting.
func (w *Waiting[K, V]) Write(commit func(map[K]V) error) error {
	w.writing.Lock()
	defer w.writing.Unlock()
	w.mu.Lock()
	going := maps.Clone(w.waits)
	w.mu.Unlock()
	if len(going) == 0 {
		return nil
	}
	if err := commit(going); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for k, v := range going {
		if w.waits[k] == v {
			delete(w.waits, k)
		}
	}
	return nil
}

// Forget drops what waits under keys, then calls remove: what was just being written is
// in the table by then.
func (w *Waiting[K, V]) Forget(keys func(K) bool, remove func() error) error {
	w.mu.Lock()
	maps.DeleteFunc(w.waits, func(k K, _ V) bool { return keys(k) })
	w.mu.Unlock()
	w.writing.Lock()
	defer w.writing.Unlock()
	return remove()
}
