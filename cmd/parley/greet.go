package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"

	"parley/plugins/config"
	"parley/stream"
)

func streamConfig(t *config.Tree) (stream.Config, error) {
	return config.Get[stream.Config](t, config.ServerPath(stream.Name))
}

// greet prints to the terminal what listens where and, for a demonstration,
// how to try it. Nothing of it goes to the log: a password may be in it.
func (s *setup) greet(ctx context.Context, w io.Writer, h *house, demo bool) {
	fmt.Fprintf(w, "\nParley %s serves %s from %s\n\n", thisBuild().Version, strings.Join(h.host.Domains(), ", "), s.settings.Data)
	doors, err := s.doors()
	if err != nil {
		return // it was read before
	}
	open := h.addresses()
	if why := s.closed(doors); why != "" {
		fmt.Fprintf(w, "  %s\n", why)
	}
	for _, d := range doors {
		if at := open[d.name]; at != "" {
			fmt.Fprintf(w, "  %-9s %-22s %s\n", d.name, at, d.what)
		}
	}
	fmt.Fprintln(w)
	if demo {
		s.demonstrate(ctx, w, open)
	}
}

// closed says why no client can connect to this process; empty: one can.
func (s *setup) closed(doors []door) string {
	switch {
	case s.tree.ServerEnabled(stream.Name) && len(doors) > 0:
		return ""
	case s.tree.ServerEnabled(stream.Name):
		return "Nobody can connect: servers.streamer has no address (c2s, c2s_tls, https, http)."
	case s.settings.Clustered():
		return "A core: clients connect to fronts."
	}
	return "Nobody can connect: servers.streamer.enabled is false, and there is no cluster with fronts."
}

// port is that of a host:port.
func port(address string) string {
	_, p, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return p
}

// hostOf is the host of a host:port as a client on this machine reaches it.
func hostOf(address string) string {
	h, _, err := net.SplitHostPort(address)
	if err != nil {
		return "localhost"
	}
	if ip := net.ParseIP(h); ip != nil && (ip.IsUnspecified() || ip.IsLoopback()) {
		return "localhost"
	}
	return h
}
