package upload

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"
)

// pace cuts off transfers that are too slow (reliability row 19): the n-th byte
// has to be there when the patience and n bytes' time at the least rate are over.
// Deadlines of sockets are the machine's time, whatever clock the house has.
type pace struct {
	ctx      context.Context // of the request: what is cut off is cut off at once
	conn     *http.ResponseController
	began    time.Time
	patience time.Duration
	rate     int64 // bytes a second
	done     int64
}

func (d *door) pace(w http.ResponseWriter, r *http.Request) *pace {
	return &pace{ctx: r.Context(), conn: http.NewResponseController(w), began: time.Now(), patience: d.cfg.Patience, rate: int64(d.cfg.MinRate)}
}

// due is when what comes next has to be there.
func (p *pace) due() time.Time { return p.began.Add(p.longest(p.done)) }

// longest is how long a transfer of size bytes may take.
func (p *pace) longest(size int64) time.Duration { // whole seconds first, so that nothing overflows
	return p.patience + time.Duration(size/p.rate)*time.Second + time.Duration(size%p.rate)*time.Second/time.Duration(p.rate)
}

// step sets the deadline of what comes next. The context is looked at afterwards:
// whoever ends it sets one that is over.
func (p *pace) step(set func(time.Time) error) error {
	if err := set(p.due()); err != nil {
		return err
	}
	return p.ctx.Err()
}

// over is a deadline that nothing keeps.
var over = time.Unix(1, 0)

// paced reads a request's body at least that fast.
type paced struct {
	*pace
	from io.Reader
	stop func() bool
}

func (p *pace) reading(from io.Reader) *paced {
	return &paced{p, from, context.AfterFunc(p.ctx, func() { _ = p.conn.SetReadDeadline(over) })}
}

func (p *paced) Read(b []byte) (int, error) {
	if err := p.step(p.conn.SetReadDeadline); err != nil {
		return 0, err
	}
	n, err := p.from.Read(b)
	p.done += int64(n)
	if errors.Is(err, io.EOF) { // the server goes on reading, to hear when the client goes
		p.stop()
		_ = p.conn.SetReadDeadline(time.Time{})
	}
	return n, err
}

// pacedWriter lets whoever reads an answer do it at least that fast.
type pacedWriter struct {
	http.ResponseWriter
	*pace
	stop func() bool
}

func (p *pace) writing(w http.ResponseWriter) *pacedWriter {
	return &pacedWriter{w, p, context.AfterFunc(p.ctx, func() { _ = p.conn.SetWriteDeadline(over) })}
}

func (p *pacedWriter) Write(b []byte) (int, error) {
	if err := p.step(p.conn.SetWriteDeadline); err != nil {
		return 0, err
	}
	n, err := p.ResponseWriter.Write(b)
	p.done += int64(n)
	return n, err
}

// end lets the connection go on with its next request.
func (p *pacedWriter) end() {
	_ = p.conn.Flush() // what is left of the answer is still under the deadline
	if p.stop() {
		_ = p.conn.SetWriteDeadline(time.Time{})
	}
}
