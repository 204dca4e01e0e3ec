package bytestreams

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// chunk is what one direction of a bytestream holds in memory.
const chunk = 16 << 10

var errBytes = errors.New("the bytestream has carried what one may")

// relay is a bytestream: what comes on one end goes out on the other. Deadlines of
// sockets are the machine's time, whatever clock the house has.
type relay struct {
	ends    [2]net.Conn
	cfg     *Config // of when it began
	m       *metrics
	carried atomic.Int64
	heard   atomic.Int64 // when something came last, in unix nanoseconds
}

// run returns when both directions have ended, or the context, or nothing has come
// for too long.
func (r *relay) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	hangUp := func() {
		for _, c := range r.ends {
			_ = c.Close()
		}
	}
	defer context.AfterFunc(ctx, hangUp)()
	defer hangUp()
	r.heard.Store(time.Now().UnixNano())
	var both sync.WaitGroup
	for i, from := range r.ends {
		both.Go(func() {
			if err := r.carry(ctx, r.ends[1-i], from); err != nil {
				if errors.Is(err, errBytes) {
					r.m.refused.WithLabelValues("bytes").Inc()
				}
				cancel()
			}
		})
	}
	both.Wait()
}

// carry copies one direction until its sender ends it.
func (r *relay) carry(ctx context.Context, to, from net.Conn) error {
	pace := rate.NewLimiter(rate.Limit(r.cfg.Rate), chunk)
	b := make([]byte, chunk)
	for {
		n, err := r.read(from, b)
		if n > 0 {
			if r.carried.Add(int64(n)) > int64(r.cfg.Bytes) {
				return errBytes
			}
			if err := pace.WaitN(ctx, n); err != nil {
				return err
			}
			if err := to.SetWriteDeadline(time.Now().Add(r.cfg.Idle)); err != nil {
				return err
			}
			if _, err := to.Write(b[:n]); err != nil {
				return err
			}
			r.heard.Store(time.Now().UnixNano())
			r.m.bytes.Add(float64(n))
		}
		switch {
		case errors.Is(err, io.EOF):
			if half, ok := to.(interface{ CloseWrite() error }); ok {
				return half.CloseWrite()
			}
			return err
		case err != nil:
			return err
		}
	}
}

// read waits as long as one of the two directions is used.
func (r *relay) read(from net.Conn, b []byte) (int, error) {
	for {
		until := time.Unix(0, r.heard.Load()).Add(r.cfg.Idle)
		if err := from.SetReadDeadline(until); err != nil {
			return 0, err
		}
		n, err := from.Read(b)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) || !time.Unix(0, r.heard.Load()).Add(r.cfg.Idle).After(until) {
			return n, err
		}
	}
}
