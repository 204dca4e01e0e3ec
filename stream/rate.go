package stream

import (
	"context"

	"golang.org/x/time/rate"
)

// limiter slows down one session's reading.
type limiter struct{ bytes, stanzas *rate.Limiter }

// newLimiter returns nil when nothing is limited.
func (r Rate) newLimiter() *limiter {
	l := &limiter{}
	if r.Bytes > 0 {
		l.bytes = rate.NewLimiter(rate.Limit(r.Bytes), int(r.Bytes)*r.Burst)
	}
	if r.Stanzas > 0 {
		l.stanzas = rate.NewLimiter(rate.Limit(r.Stanzas), r.Stanzas*r.Burst)
	}
	if l.bytes == nil && l.stanzas == nil {
		return nil
	}
	return l
}

// wait delays the reader, which is the peer's own loss (reliability row 4).
func (l *limiter) wait(ctx context.Context, bytes, stanzas int) {
	if l == nil {
		return
	}
	for l.bytes != nil && bytes > 0 { // what is more than one burst waits for several
		n := min(bytes, l.bytes.Burst())
		if l.bytes.WaitN(ctx, n) != nil { // the stream is being closed
			break
		}
		bytes -= n
	}
	if l.stanzas != nil && stanzas > 0 {
		_ = l.stanzas.WaitN(ctx, min(stanzas, l.stanzas.Burst()))
	}
}
