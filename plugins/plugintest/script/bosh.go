package script

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

const (
	nsHTTPBind = "http://jabber.org/protocol/httpbind"
	nsXBOSH    = "urn:xmpp:xbosh"
)

// maxBOSHBody bounds a response, in bytes.
const maxBOSHBody = 1 << 24

// boshConn is a BOSH session (XEP-0124) as the engine needs it: the framing is that of a WebSocket. Each Write is one
// element: <open/> begins the session or restarts the stream, <close/> ends it. A request is always with the server.
type boshConn struct {
	net.Conn // nil: what is not here is not asked for
	url      string
	hc       *http.Client
	ctx      context.Context
	cancel   context.CancelFunc
	messages chan []byte

	mu      sync.Mutex
	room    *sync.Cond // mu's: fewer requests are out
	sid     string
	rid     uint64
	most    int // requests at one time
	out     int
	turn    uint64            // the rid whose response is read next
	early   map[uint64][]byte // responses before their turn
	failure error
	over    bool
}

// DialBOSH returns a session that begins with the first Write. hc may carry a TLS configuration; nil is a client of its own.
func DialBOSH(url string, hc *http.Client) net.Conn {
	if hc == nil {
		hc = &http.Client{Transport: &http.Transport{}}
	}
	ctx, cancel := context.WithCancel(context.Background())
	b := &boshConn{url: url, hc: hc, ctx: ctx, cancel: cancel, messages: make(chan []byte, queueLength), most: 1, early: map[uint64][]byte{}}
	b.room = sync.NewCond(&b.mu)
	var n [4]byte
	_, _ = rand.Read(n[:])
	b.rid = uint64(binary.BigEndian.Uint32(n[:])) + 1 // XEP-0124 §14.1
	b.turn = b.rid
	return b
}

// Write sends one element in a request of its own, when one more may be out (XEP-0124 §11).
func (b *boshConn) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.out >= b.most && !b.over {
		b.room.Wait()
	}
	if b.over {
		return 0, errors.Join(net.ErrClosed, b.failure)
	}
	nodes, err := parseNodes(string(p), false)
	if err == nil && len(nodes) == 1 && nodes[0].is(nsFraming, "open") {
		b.open(nodes[0])
		return len(p), nil
	}
	if err == nil && len(nodes) == 1 && nodes[0].is(nsFraming, "close") {
		b.request(" type='terminate'", nil)
		return len(p), nil
	}
	b.request("", p) // whatever it is: scripts say wrong things as well
	return len(p), nil
}

// open begins the session, or the stream after it (XEP-0206 §5); b.mu is held.
func (b *boshConn) open(n *node) {
	attrs := " to='" + attrEscaper.Replace(n.get("to")) + "' xmpp:version='" + attrEscaper.Replace(n.get("version")) + "'"
	if lang, _ := n.attr(name{nsXML, "lang"}); lang != "" {
		attrs += " xml:lang='" + attrEscaper.Replace(lang) + "'"
	}
	if from := n.get("from"); from != "" {
		attrs += " from='" + attrEscaper.Replace(from) + "'"
	}
	if b.sid == "" {
		attrs += " wait='60' hold='1' ver='1.11' content='text/xml; charset=utf-8'"
	} else {
		attrs += " xmpp:restart='true'"
	}
	b.request(attrs, nil)
}

// request makes one; b.mu is held.
func (b *boshConn) request(attrs string, payload []byte) {
	rid := b.rid
	b.rid++
	b.out++
	if b.sid != "" {
		attrs += " sid='" + b.sid + "'"
	}
	body := "<body xmlns='" + nsHTTPBind + "' xmlns:xmpp='" + nsXBOSH + "' xmlns:stream='" + nsStream + "' rid='" + strconv.FormatUint(rid, 10) + "'" + attrs
	if len(payload) == 0 {
		body += "/>"
	} else {
		body += ">" + string(payload) + "</body>"
	}
	go func() {
		answer, err := b.post(body)
		b.came(rid, answer, err)
	}()
}

func (b *boshConn) post(body string) ([]byte, error) {
	req, err := http.NewRequestWithContext(b.ctx, http.MethodPost, b.url, bytes.NewReader([]byte(body)))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "text/xml; charset=utf-8")
	resp, err := b.hc.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("BOSH: %s", resp.Status)
	}
	return io.ReadAll(io.LimitReader(resp.Body, maxBOSHBody))
}

// came takes a response in its turn, and keeps a request with the server.
func (b *boshConn) came(rid uint64, answer []byte, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.room.Broadcast()
	b.out--
	if err != nil {
		b.end(err)
		return
	}
	b.early[rid] = answer
	for !b.over {
		next, ok := b.early[b.turn]
		if !ok {
			break
		}
		delete(b.early, b.turn)
		b.turn++
		if err := b.read(next); err != nil {
			b.end(err)
		}
	}
	if !b.over && b.out == 0 && b.sid != "" {
		b.request("", nil)
	}
}

// read makes messages of a response; b.mu is held.
func (b *boshConn) read(answer []byte) error {
	nodes, err := parseNodes(string(answer), false)
	if err != nil || len(nodes) != 1 || !nodes[0].is(nsHTTPBind, "body") {
		return fmt.Errorf("%w: %.200q is no BOSH response", errBadXML, answer)
	}
	body := nodes[0]
	if sid := body.get("sid"); sid != "" {
		b.sid = sid
		b.most, _ = strconv.Atoi(body.get("requests"))
	}
	if id := body.get("authid"); id != "" {
		b.tell("<open xmlns='" + nsFraming + "' id='" + attrEscaper.Replace(id) + "' from='" + attrEscaper.Replace(body.get("from")) + "' version='1.0' xml:lang='en'/>")
	}
	for _, n := range body.kids {
		if n.name.local != "" {
			b.tell(framedText(n))
		}
	}
	if body.get("type") == "terminate" {
		if c := body.get("condition"); c == "" || c == "remote-stream-error" {
			b.tell("<close xmlns='" + nsFraming + "'/>")
		}
		b.end(nil)
	}
	return nil
}

func (b *boshConn) tell(message string) {
	select {
	case b.messages <- []byte(message):
	case <-b.ctx.Done():
	}
}

// end is the end of the session; b.mu is held.
func (b *boshConn) end(err error) {
	if b.over {
		return
	}
	b.over, b.failure = true, err
	close(b.messages)
}

// ReadMessage implements messageReader.
func (b *boshConn) ReadMessage() ([]byte, error) {
	m, ok := <-b.messages
	if !ok {
		return nil, net.ErrClosed
	}
	return m, nil
}

// SetWriteDeadline implements net.Conn: a request ends when the session does.
func (b *boshConn) SetWriteDeadline(time.Time) error { return nil }

// Close drops the session: its requests' connections are lost.
func (b *boshConn) Close() error {
	b.cancel()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end(nil)
	b.room.Broadcast()
	b.hc.CloseIdleConnections()
	return nil
}
