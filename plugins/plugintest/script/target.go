package script

import (
	"context"
	"errors"
	"net"
)

// DialKind says how a connection starts.
type DialKind uint8

const (
	TCP       DialKind = iota // RFC 6120 §3: plain TCP; STARTTLS is the client's business
	DirectTLS                 // XEP-0368: the connection to a direct-TLS port; the engine does the handshake itself
	WebSocket                 // RFC 7395: each Write is one text message; see DialWebSocket
	BOSH                      // XEP-0124: each Write is one element; see DialBOSH
)

// ErrUnsupported is what a Target answers when it cannot do what a script asks; the script is then skipped with that reason.
var ErrUnsupported = errors.New("not supported by this target")

// Target is the server under test, as the engine needs it.
type Target interface {
	// Domain is the XMPP domain accounts live on.
	Domain() string
	// Account makes an account. Names are unique per script run; asking twice for the same one within a run is no error.
	Account(ctx context.Context, user, password string) error
	// Dial opens a connection to the client port of that kind; ErrUnsupported when there is none.
	Dial(ctx context.Context, kind DialKind) (net.Conn, error)
	// Service is the address of "muc", "pubsub", "upload", … or "" when there is none (the script is skipped).
	Service(name string) string
	// Restart stops the server and starts it again with the same data; it returns when connections are accepted.
	Restart(ctx context.Context) error
	// Reload makes the server read its configuration again.
	Reload(ctx context.Context) error
}

// Configurer is a Target that can run with a script's own configuration (its config.yaml file). Against a Target
// without it such a script is skipped.
type Configurer interface {
	// Configure starts or restarts the server with overlay merged over its base configuration. nil means the base alone.
	Configure(ctx context.Context, overlay []byte) error
}

// Spreader is a Target with several nodes. Clients connect to it by their place in the script, so that they are spread
// over the nodes and come back to theirs.
type Spreader interface {
	DialFrom(ctx context.Context, client int, kind DialKind) (net.Conn, error)
}

// Settler is a Target in which what one client has caused may still be on its way to another one after the first one's
// round trip.
type Settler interface {
	// Settled returns when nothing is on its way.
	Settled(ctx context.Context) error
}

// Scattered is a Target in which a service may be on another node than who asks it: the answer and what else the
// request leads to come by different roads, in no order between them. Scripts still expect each road's in order.
type Scattered interface {
	Scattered() bool
}

// Killer is a Target that can end as kill -9 ends a program. Against a Target without it scripts with kill are skipped.
type Killer interface {
	// Kill ends the server so that nothing is written any more, and starts it again with the same data.
	Kill(ctx context.Context) error
}

// Via is the way clients log in unless their script says otherwise.
type Via uint8

const (
	ViaSTARTTLS Via = iota
	ViaDirectTLS
	ViaPlain // no TLS at all: only for a server that offers SASL without
	ViaWebSocket
	ViaBOSH
)

// viaNames are the words of a script (client … via WORD, connect NAME WORD) and of xmppscript --tls.
var viaNames = map[string]Via{
	"starttls": ViaSTARTTLS,
	"tls":      ViaDirectTLS, "direct": ViaDirectTLS,
	"plain": ViaPlain, "none": ViaPlain, "raw": ViaPlain,
	"ws": ViaWebSocket, "websocket": ViaWebSocket,
	"bosh": ViaBOSH,
}

// ParseVia reads starttls, tls (direct), plain (none), ws or bosh.
func ParseVia(s string) (Via, bool) {
	v, ok := viaNames[s]
	return v, ok
}
