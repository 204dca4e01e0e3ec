package upload

import (
	"errors"
	"io"
	"net/http"
	"time"
)

// pace cuts off transfers that are too slow (reliability row 19): the n-th byte
// has to be there when the patience and n bytes' time at the least rate are over.
// Deadlines of sockets are the machine's time, whatever clock the house has.
type pace struct {
	began    time.Time
	patience time.Duration
	rate     int64 // bytes a second
	done     int64
}

func newPace(c *DoorConfig) *pace {
	return &pace{began: time.Now(), patience: c.Patience, rate: int64(c.MinRate)}
}

// due is when what comes next has to be there.
func (p *pace) due() time.Time {
	return p.began.Add(p.patience + atRate(p.done, p.rate))
}

// longest is how long a transfer of size bytes may take.
func (p *pace) longest(size int64) time.Duration { return p.patience + atRate(size, p.rate) }

// atRate is how long bytes take. Whole seconds first, so that nothing overflows.
func atRate(bytes, rate int64) time.Duration {
	return time.Duration(bytes/rate)*time.Second + time.Duration(bytes%rate)*time.Second/time.Duration(rate)
}

// paced reads a request's body at least that fast.
type paced struct {
	*pace
	from io.Reader
	conn *http.ResponseController
}

func (p *paced) Read(b []byte) (int, error) {
	if err := p.conn.SetReadDeadline(p.due()); err != nil {
		return 0, err
	}
	n, err := p.from.Read(b)
	p.done += int64(n)
	if errors.Is(err, io.EOF) { // the server goes on reading, to hear when the client goes
		_ = p.conn.SetReadDeadline(time.Time{})
	}
	return n, err
}

// pacedWriter lets whoever reads an answer do it at least that fast.
type pacedWriter struct {
	http.ResponseWriter
	*pace
	conn *http.ResponseController
}

func (p *pacedWriter) Write(b []byte) (int, error) {
	if err := p.conn.SetWriteDeadline(p.due()); err != nil {
		return 0, err
	}
	n, err := p.ResponseWriter.Write(b)
	p.done += int64(n)
	return n, err
}

// end lets the connection go on with its next request.
func (p *pacedWriter) end() {
	_ = p.conn.Flush() // what is left of the answer is still under the deadline
	_ = p.conn.SetWriteDeadline(time.Time{})
}

// Unwrap is for http.ResponseController.
func (p *pacedWriter) Unwrap() http.ResponseWriter { return p.ResponseWriter }
