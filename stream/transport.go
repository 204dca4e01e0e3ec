package stream

import (
	"crypto/tls"
	"net"
	"time"
)

// Transport carries one stream's bytes. TCP with and without TLS is here;
// WebSocket and others bring their own.
//
// Queue and Flush never block on the peer: what the socket does not take at
// once stays pending until it does. They may be called by many goroutines;
// Fill belongs to the one reader.
type Transport interface {
	// Fill waits for bytes from the peer. The slice is valid until the next
	// call. A framed transport returns one whole message, or has Partial and
	// returns messages in pieces, so that limits hold while they come. An error
	// that is a *stanza.StreamError goes to the peer.
	Fill() ([]byte, error)
	// Queue takes one complete element, or a piece of stream markup; p may be
	// kept and must not be changed any more.
	Queue(p []byte)
	// Flush gives what was queued to the socket and returns how many bytes
	// are still pending after that; -1 when the connection is known to be dead,
	// so that nobody takes what it lost for written.
	Flush() (pending int)
	// Pending returns the bytes that the peer has not taken yet.
	Pending() int
	// OnDrained sets what is called, on a goroutine of the transport's, when
	// Pending has returned to 0 after a Flush that could not empty it, or the
	// connection has died meanwhile.
	OnDrained(func())
	SetReadDeadline(time.Time)
	// Close ends the transport when what is pending has been written or the
	// grace has passed.
	Close(grace time.Duration)
	RemoteAddr() net.Addr
	// Framed reports RFC 7395 framing: each message one element, <open/> and
	// <close/> instead of a root element.
	Framed() bool
	// TLS returns the state of the encryption, nil without. Channel binding
	// comes from it.
	TLS() *tls.ConnectionState
	// StartTLS runs a server handshake after discarding whatever plaintext
	// was read ahead (RFC 6120 §5.4.3.3). ErrNoUpgrade: this transport cannot.
	StartTLS(*tls.Config, time.Duration) error
	// Name is how operators know it: tcp, tls, websocket, component.
	Name() string
}

// initiating is a Transport on which we may begin TLS.
type initiating interface {
	// InitiateTLS is StartTLS with the client's end of the handshake.
	InitiateTLS(*tls.Config, time.Duration) error
}

// watchable is a Transport that can do without a goroutine while its peer is
// silent.
type watchable interface {
	// Watch leaves the waiting to p: turn runs, one at a time, now and whenever
	// there may be something to read or the deadline has passed, and Fill does
	// not wait any more, it returns errQuiet. False: it has to wait itself. The
	// reader calls it.
	Watch(p *poller, turn func()) bool
	// Release is Close for the reader, which gives the socket back with it:
	// nobody has to be told.
	Release(grace time.Duration)
}

var (
	_ watchable  = (*tcp)(nil)
	_ initiating = (*tcp)(nil)
)
