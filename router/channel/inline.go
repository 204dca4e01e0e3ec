package channel

import (
	"context"
	"sync"
)

// Inline is a function call: Send runs the receiver's handler on the sender's
// goroutine. While nobody receives (the stage is stopped or being replaced)
// senders wait, which is how back-pressure reaches the socket.
type Inline struct {
	mu     sync.Mutex
	open   chan struct{} // closed while a handler is there
	stage  *inlineStage
	closed bool
	done   chan struct{}
}

// inlineStage is one Receive: its handler, and who is inside it.
type inlineStage struct {
	h  Handler
	in sync.WaitGroup
}

// NewInline returns a channel that nobody receives from yet.
func NewInline() *Inline {
	return &Inline{open: make(chan struct{}), done: make(chan struct{})}
}

// Send implements MessageChannel.
func (c *Inline) Send(ctx context.Context, batch []*Envelope) error {
	st, err := c.enter(ctx)
	if err != nil {
		return err
	}
	defer st.in.Done()
	return st.h(ctx, batch)
}

// enter waits for a handler; the caller has to leave it.
func (c *Inline) enter(ctx context.Context) (*inlineStage, error) {
	for {
		c.mu.Lock()
		st, open := c.stage, c.open
		if c.closed {
			c.mu.Unlock()
			return nil, ErrClosed
		}
		if st != nil {
			st.in.Add(1)
			c.mu.Unlock()
			return st, nil
		}
		c.mu.Unlock()
		select {
		case <-open:
		case <-c.done:
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Receive implements DataReceiver. It returns when ctx is done and every call
// that had entered h has left it.
func (c *Inline) Receive(ctx context.Context, h Handler) error {
	st := &inlineStage{h: h}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return ErrClosed
	}
	c.stage = st
	close(c.open)
	c.mu.Unlock()

	<-ctx.Done()

	c.mu.Lock()
	c.stage = nil
	c.open = make(chan struct{})
	c.mu.Unlock()
	st.in.Wait()
	return nil
}

// Close releases every waiting sender with ErrClosed.
func (c *Inline) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.closed = true
		close(c.done)
	}
}
