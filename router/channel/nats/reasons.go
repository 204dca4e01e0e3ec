package nats

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	natsgo "github.com/nats-io/nats.go"
)

// Why a server and a node do not come together. The client's own errors say what
// happened; who has to configure something wants to know on which side it is.
var (
	ErrTrust       = errors.New("the certificate of the NATS server is not one to be trusted")
	ErrCertificate = errors.New("the NATS server does not accept this node's certificate, or misses one")
	ErrNoTLS       = errors.New("the NATS server does not speak TLS")
	ErrCredentials = errors.New("the NATS server does not accept this node's user")
	ErrPermission  = errors.New("the NATS server does not permit this node's user what the node has to do")
)

// reason adds the one of them that explains err. secure: TLS was asked for.
func reason(err error, secure bool) error {
	var verify *tls.CertificateVerificationError
	var alert *net.OpError
	var why error
	switch {
	case errors.As(err, &verify):
		why = ErrTrust
	case errors.As(err, &alert) && alert.Op == "remote error":
		why = ErrCertificate
	case errors.Is(err, natsgo.ErrSecureConnWanted):
		why = ErrNoTLS
	case errors.Is(err, natsgo.ErrAuthorization), errors.Is(err, natsgo.ErrAuthExpired), errors.Is(err, natsgo.ErrAuthRevoked), errors.Is(err, natsgo.ErrAccountAuthExpired):
		why = ErrCredentials
	case secure && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)):
		// In TLS 1.3 the server says so behind the handshake, and its word may get
		// lost with the connection.
		why = ErrCertificate
	default:
		return err
	}
	return fmt.Errorf("%w: %w", why, err)
}

// odd logs what the client has to say besides.
func (b *Bus) odd(sub *natsgo.Subscription, err error) {
	switch {
	case errors.Is(err, natsgo.ErrPermissionViolation):
		b.forbidden.Do(func() { b.log.Error("nats: not permitted; the pipe stands still", "err", err) })
	case sub != nil:
		b.oddities.Do(func() { b.log.Warn("nats: subscription", "subject", sub.Subject, "err", err) })
	default:
		b.oddities.Do(func() { b.log.Warn("nats: connection", "err", err) })
	}
}
