package websocket

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
)

// Sizes of the buffers that a WebSocket holds while it is idle.
const (
	readBuffer  = 1 << 10
	writeBuffer = 2 << 10
)

// hijacker keeps the connection below the WebSocket, for deadlines and for
// cutting it off, and gives it smaller buffers than an HTTP server has.
type hijacker struct {
	http.ResponseWriter
	conn net.Conn
}

// Hijack implements http.Hijacker.
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	hj, ok := h.ResponseWriter.(http.Hijacker)
	if !ok {
		return nil, nil, errNotHijackable
	}
	conn, brw, err := hj.Hijack()
	if err != nil {
		return nil, nil, err
	}
	h.conn = conn
	// What the client has sent behind its request must be found in the buffer.
	early, _ := brw.Reader.Peek(brw.Reader.Buffered())
	r := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(early), conn), max(readBuffer, len(early)))
	if _, err := r.Peek(len(early)); err != nil {
		return nil, nil, err
	}
	return conn, bufio.NewReadWriter(r, bufio.NewWriterSize(conn, writeBuffer)), nil
}
