package plugintest

import (
	"context"
	"io"
	"net"
	"regexp"
	"sync"
	"testing"

	"parley/plugins"
	"parley/plugins/plugintest/script"
	"parley/storage"
	"parley/storage/storagetest"
	"parley/stream/component"
)

// Components is a house whose raw connections lead to the door of external
// components, the first node's: in its scripts clients log in over direct TLS,
// `connect NAME raw` is a component. A component writes its secret into
// <handshake/>; the hash is made on the way, because a script cannot compute.
// Clients are spread over several nodes.
func Components(h *House) script.Target { return stage{Spread{h}} }

type stage struct{ Spread }

// Dial implements script.Target.
func (s stage) Dial(ctx context.Context, kind script.DialKind) (net.Conn, error) {
	return s.DialFrom(ctx, 0, kind)
}

// DialFrom implements script.Spreader.
func (s stage) DialFrom(ctx context.Context, client int, kind script.DialKind) (net.Conn, error) {
	if kind != script.TCP {
		return s.Spread.DialFrom(ctx, client, kind)
	}
	return DialComponent(ctx, s.Door("component"))
}

// DialComponent connects to a door of external components; what is written there
// as <handshake>the secret</handshake> is sent as its hash.
func DialComponent(ctx context.Context, address string) (net.Conn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &hashing{Conn: c}, nil
}

type hashing struct {
	net.Conn
	mu   sync.Mutex
	seen string // what the server has said, until its stream id is known
	id   string
}

var (
	streamID = regexp.MustCompile(`<stream:stream[^>]* id='([^']+)'`)
	secret   = regexp.MustCompile(`<handshake>([^<]*)</handshake>`)
)

func (h *hashing) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.id == "" {
		h.seen += string(p[:n])
		if m := streamID.FindStringSubmatch(h.seen); m != nil {
			h.id = m[1]
		}
	}
	return n, err
}

func (h *hashing) Write(p []byte) (int, error) {
	h.mu.Lock()
	id := h.id
	h.mu.Unlock()
	out := secret.ReplaceAllStringFunc(string(p), func(s string) string {
		return "<handshake>" + component.Handshake(id, secret.FindStringSubmatch(s)[1]) + "</handshake>"
	})
	if _, err := io.WriteString(h.Conn, out); err != nil {
		return 0, err
	}
	return len(p), nil
}

// ComponentScripts runs scripts with components, configured by section, in a house of
// one node, in a front and its core, where the streamer, which has the components, is
// on another node than the processor, and on two nodes.
func ComponentScripts(t *testing.T, all []plugins.Plugin, section, glob string) {
	t.Helper()
	for name, o := range map[string]Options{"local": {}, "front-core": {Fronts: 1, Cores: 1}, "nodes": {Nodes: 2}} {
		t.Run(name, func(t *testing.T) {
			o.Plugins, o.Config = all, section
			if name != "local" {
				c := storagetest.Postgres(t)
				o.Storage = func() storage.Config { return c }
			}
			script.Test(t, &script.Runner{Target: Components(Start(t, o))}, glob)
		})
	}
}
