package script

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"github.com/coder/websocket"
)

// wsConn is a WebSocket as the engine needs it: each Write is one text message, ReadMessage keeps the borders.
type wsConn struct {
	net.Conn // deadlines and Write
	ws       *websocket.Conn
}

// DialWebSocket opens wss://… or ws://… with subprotocol xmpp (RFC 7395 §3.1). hc may carry a TLS configuration; nil is the default client.
func DialWebSocket(ctx context.Context, url string, hc *http.Client) (net.Conn, error) {
	ws, resp, err := websocket.Dial(ctx, url, &websocket.DialOptions{HTTPClient: hc, Subprotocols: []string{"xmpp"}})
	if err != nil {
		return nil, fmt.Errorf("websocket %s: %w", url, err)
	}
	if got := resp.Header.Get("Sec-WebSocket-Protocol"); got != "xmpp" {
		ws.CloseNow()
		return nil, fmt.Errorf("websocket %s: the server answered subprotocol %q, not xmpp (RFC 7395 §3.1)", url, got)
	}
	ws.SetReadLimit(1 << 24)
	return &wsConn{Conn: websocket.NetConn(context.Background(), ws, websocket.MessageText), ws: ws}, nil
}

// ReadMessage reads one text message; a binary one is an error (RFC 7395 §3.2).
func (w *wsConn) ReadMessage() ([]byte, error) {
	kind, data, err := w.ws.Read(context.Background())
	switch {
	case websocket.CloseStatus(err) != -1:
		return nil, net.ErrClosed
	case err != nil:
		return nil, err
	case kind != websocket.MessageText:
		return nil, fmt.Errorf("%w: a binary message (RFC 7395 §3.2)", errBadXML)
	}
	return data, nil
}

// Close drops the connection without a closing handshake.
func (w *wsConn) Close() error { return w.ws.CloseNow() }
