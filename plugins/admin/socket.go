package admin

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// ErrTaken: a server answers on the socket already.
var ErrTaken = errors.New("another server runs on this data directory")

// maxSocketPath is what fits in sockaddr_un (unix(7)), with the final NUL.
const maxSocketPath = 107

// listen opens the socket with mode 0600. It is made inside a directory nobody
// else can enter and then moved, so that there is no moment at which it is open
// to others, and what a crashed server left behind is replaced.
func listen(path string) (net.Listener, error) {
	if c, err := net.DialTimeout("unix", short(path), time.Second); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("%w (%s answers)", ErrTaken, path)
	}
	dir := filepath.Join(filepath.Dir(path), ".s"+strings.ToLower(rand.Text()[:4]))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, fmt.Errorf("administration socket: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	inside := filepath.Join(dir, "s")
	if len(short(inside)) > maxSocketPath {
		return nil, fmt.Errorf("administration socket: the path %s is longer than a socket's may be (%d bytes): use a shorter data directory", path, maxSocketPath)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short(inside), Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("administration socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	err = errors.Join(os.Chmod(inside, 0o600))
	if err == nil {
		err = os.Rename(inside, path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("administration socket: %w", err), l.Close())
	}
	return &listener{UnixListener: l, path: path}, nil
}

// short is the path relative to the working directory when that is shorter.
func short(path string) string {
	wd, err := os.Getwd()
	if err != nil {
		return path
	}
	if rel, err := filepath.Rel(wd, path); err == nil && len(rel) < len(path) {
		return rel
	}
	return path
}

// listener removes the socket at the end, and names who connects.
type listener struct {
	*net.UnixListener
	path string
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.AcceptUnix()
	if err != nil {
		return nil, err
	}
	return &conn{c, peer(peerName(c))}, nil
}

// Close implements net.Listener.
func (l *listener) Close() error {
	return errors.Join(l.UnixListener.Close(), os.Remove(l.path))
}

// conn has as its remote address the user at the other end: it becomes
// http.Request.RemoteAddr, and so the "by" of what is changed.
type conn struct {
	net.Conn
	remote peer
}

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// peer is a user of this machine.
type peer string

// Network implements net.Addr.
func (peer) Network() string { return "unix" }

// String implements net.Addr.
func (p peer) String() string { return string(p) }
