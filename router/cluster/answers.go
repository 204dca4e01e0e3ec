package cluster

import "sync/atomic"

// answers waits for what was sent to several nodes. It begins with one that is
// the sender's own.
type answers struct {
	open atomic.Int64
	all  chan struct{} // closed when none is open
}

func newAnswers() *answers {
	a := &answers{all: make(chan struct{})}
	a.open.Store(1)
	return a
}

func (a *answers) expect() { a.open.Add(1) }

func (a *answers) came(error) {
	if a.open.Add(-1) == 0 {
		close(a.all)
	}
}

// sent says that nothing more is expected, and returns what is closed when
// everything has come.
func (a *answers) sent() <-chan struct{} {
	a.came(nil)
	return a.all
}
