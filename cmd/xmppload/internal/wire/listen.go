//go:build linux

package wire

import (
	"fmt"
	"net"
	"syscall"
)

// listener accepts on the loop.
type listener struct {
	fd     int
	accept func(*Conn)
}

// Listen opens an IPv4 address and hands each connection to accept, which sets
// its handlers. It returns the address, and a function that closes it.
func (l *Loop) Listen(address string, accept func(*Conn)) (string, error) {
	tcp, err := net.Listen("tcp4", address)
	if err != nil {
		return "", err
	}
	defer tcp.Close()
	raw, err := tcp.(*net.TCPListener).SyscallConn()
	if err != nil {
		return "", err
	}
	ln := &listener{fd: -1, accept: accept}
	if err := raw.Control(func(fd uintptr) {
		if r, _, errno := syscall.Syscall(syscall.SYS_FCNTL, fd, syscall.F_DUPFD_CLOEXEC, 0); errno == 0 {
			ln.fd = int(r)
		}
	}); err != nil {
		return "", err
	}
	if ln.fd < 0 {
		return "", fmt.Errorf("listen on %s: no descriptor", address)
	}
	return tcp.Addr().String(), l.add(ln.fd, ln)
}

func (ln *listener) ready(l *Loop, _ uint32) {
	for {
		fd, _, err := syscall.Accept4(ln.fd, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
		c, err := l.Attach(fd)
		if err != nil {
			_ = syscall.Close(fd)
			continue
		}
		ln.accept(c)
	}
}
