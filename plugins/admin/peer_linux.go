package admin

import (
	"net"
	"os/user"
	"strconv"
	"syscall"
)

// peerName names the user at the other end, as the kernel knows it (unix(7),
// SO_PEERCRED).
func peerName(c *net.UnixConn) string {
	raw, err := c.SyscallConn()
	if err != nil {
		return unknownPeer
	}
	name := unknownPeer
	err = raw.Control(func(fd uintptr) {
		cred, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
		if err != nil {
			return
		}
		name = "uid " + strconv.FormatUint(uint64(cred.Uid), 10)
		if u, err := user.LookupId(strconv.FormatUint(uint64(cred.Uid), 10)); err == nil {
			name = u.Username
		}
	})
	if err != nil {
		return unknownPeer
	}
	return name
}

const unknownPeer = "administrator"
