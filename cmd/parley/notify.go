package main

import (
	"net"
	"os"
)

// notify tells systemd how far the service is (sd_notify(3)); elsewhere it
// does nothing.
func notify(state string) {
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return
	}
	c, err := net.Dial("unixgram", name)
	if err != nil {
		return
	}
	defer func() { _ = c.Close() }()
	_, _ = c.Write([]byte(state)) // best effort, as sd_notify says
}
