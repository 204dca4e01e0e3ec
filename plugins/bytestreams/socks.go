package bytestreams

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // XEP-0065 asks for it
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
)

// What SOCKS says (RFC 1928 §3 to §6).
const (
	socks5       = 0x05
	noAuth       = 0x00 // a method
	noMethod     = 0xff
	cmdConnect   = 0x01
	atypIPv4     = 0x01
	atypName     = 0x03
	repOK        = 0x00
	repForbidden = 0x02
	repCommand   = 0x07
	repAddress   = 0x08
)

// hashed is the length of a destination (XEP-0065 §6.3.2), in hexadecimal digits.
const hashed = 2 * sha1.Size

var errSOCKS = errors.New("not what a bytestream begins with")

// request is what a client wants to be connected to.
type request struct {
	destination string // 40 hexadecimal digits, in lower case
	named       []byte // as it was said
}

// greet reads up to the request, and not a byte further; it refuses what is none of
// a bytestream. Errors wrap errSOCKS, or are those of the connection.
func greet(c io.ReadWriter) (request, error) {
	var b [255]byte
	if _, err := io.ReadFull(c, b[:2]); err != nil {
		return request{}, err
	}
	if b[0] != socks5 {
		return request{}, fmt.Errorf("%w: version %d of SOCKS", errSOCKS, b[0])
	}
	methods := b[:b[1]]
	if _, err := io.ReadFull(c, methods); err != nil {
		return request{}, err
	}
	if bytes.IndexByte(methods, noAuth) < 0 {
		_, _ = c.Write([]byte{socks5, noMethod})
		return request{}, fmt.Errorf("%w: it wants a password", errSOCKS)
	}
	if _, err := c.Write([]byte{socks5, noAuth}); err != nil {
		return request{}, err
	}
	return connect(c, b[:])
}

// connect reads the request proper.
func connect(c io.ReadWriter, b []byte) (request, error) {
	refuse := func(rep byte, what string) (request, error) {
		_, _ = c.Write([]byte{socks5, rep, 0, atypIPv4, 0, 0, 0, 0, 0, 0})
		return request{}, fmt.Errorf("%w: %s", errSOCKS, what)
	}
	if _, err := io.ReadFull(c, b[:5]); err != nil { // the last is the length, or of the address
		return request{}, err
	}
	version, cmd, atyp, length := b[0], b[1], b[3], int(b[4])
	switch {
	case version != socks5:
		return refuse(repForbidden, "the version has changed")
	case cmd != cmdConnect:
		return refuse(repCommand, "a command that is not CONNECT")
	case atyp != atypName:
		return refuse(repAddress, "an address")
	case length != hashed:
		return refuse(repForbidden, "a host's name")
	}
	rest := b[:hashed+2]
	if _, err := io.ReadFull(c, rest); err != nil {
		return request{}, err
	}
	named := rest[:hashed]
	switch _, err := hex.DecodeString(string(named)); {
	case err != nil:
		return refuse(repForbidden, "a host's name")
	case rest[hashed] != 0 || rest[hashed+1] != 0:
		return refuse(repForbidden, "a port")
	}
	return request{strings.ToLower(string(named)), bytes.Clone(named)}, nil
}

// reply answers a request: the address is the one that it had (XEP-0065 §6.3.2).
func (r request) reply(rep byte) []byte {
	b := append([]byte{socks5, rep, 0, atypName, byte(len(r.named))}, r.named...)
	return append(b, 0, 0)
}
