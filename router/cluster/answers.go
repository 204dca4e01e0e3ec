package cluster

import (
	"errors"
	"sync/atomic"

	"parley/router/channel/nats"
)

// answers waits for what was sent to several nodes. It begins with one that is
// the sender's own.
type answers struct {
	open    atomic.Int64
	refused atomic.Bool // by one at least
	then    func()      // when none is open
}

func newAnswers(then func()) *answers {
	a := &answers{then: then}
	a.open.Store(1)
	return a
}

// awaited is newAnswers whose end is a closed channel.
func awaited() (*answers, <-chan struct{}) {
	all := make(chan struct{})
	return newAnswers(func() { close(all) }), all
}

func (a *answers) expect() { a.open.Add(1) }

func (a *answers) came(err error) {
	if errors.Is(err, nats.ErrRefused) {
		a.refused.Store(true)
	}
	if a.open.Add(-1) == 0 {
		a.then()
	}
}

// sent says that nothing more is expected.
func (a *answers) sent() { a.came(nil) }
