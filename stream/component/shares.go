package component

import "sync"

// Shares bounds how much of something each may have at a time, so that who takes all
// of his own takes nothing of others.
type Shares struct {
	each int
	mu   sync.Mutex
	had  map[string]int
}

// NewShares lets everybody have so many.
func NewShares(each int) *Shares { return &Shares{each: max(each, 1), had: map[string]int{}} }

// Take takes one; false: there is none left. Give follows.
func (s *Shares) Take(who string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.had[who] >= s.each {
		return false
	}
	s.had[who]++
	return true
}

// Give gives one back.
func (s *Shares) Give(who string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.had[who]--; s.had[who] <= 0 {
		delete(s.had, who)
	}
}
