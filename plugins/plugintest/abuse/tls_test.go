package abuse

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/xdg-go/scram"

	"parley/plugins/all"
	"parley/plugins/plugintest"
)

// encrypted is a configuration in which nobody may do without TLS.
var encrypted = []string{unlimited, "tls: {plain_on_loopback: false}"}

// Nobody logs in, registers or talks before TLS, and what was injected before
// the handshake is not part of the stream behind it.
func TestReliability07NothingBeforeTLS(t *testing.T) {
	w := start(t, configured([]string{unlimited}, nil)) // the bystanders need none
	strict := plainless(t)
	w.during(16, func() {
		for _, try := range []string{
			plain("alice", secret), "<auth xmlns='" + nsSASL + "' mechanism='SCRAM-SHA-256'>" + b64("n,,n=alice,r=abc") + "</auth>", sasl2(""),
			"<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>",
			"<iq type='get' id='r'><query xmlns='" + nsRegister + "'/></iq>", "<message to='alice@localhost'><body>b</body></message>",
		} {
			p, err := dialPeer(strict)
			w.must(err)
			t.Cleanup(p.drop)
			w.must(p.say(header))
			features, err := p.until("</stream:features>")
			if err != nil || !strings.Contains(features, "<starttls xmlns='"+nsTLS+"'><required/></starttls>") || strings.Contains(features, "mechanism") {
				t.Errorf("offered before TLS: %s, %v", features, err)
			}
			w.must(p.say(try))
			w.refused(p, "not-authorized", "policy-violation")
		}
		for _, injected := range []string{header + plain("alice", secret), plain("alice", secret), strings.Repeat(" ", 1<<20) + "<presence/>"} {
			w.injected(strict, injected)
		}
	})
}

// plainless is the door of a house in which everybody has to encrypt.
func plainless(t *testing.T) string {
	t.Helper()
	return plugintest.Start(t, plugintest.Options{Plugins: all.Plugins(), Config: configured(encrypted, nil)}).Door("c2s")
}

// injected asserts that what came in the clear behind <starttls/> is not part
// of the stream that begins after the handshake.
func (w *world) injected(door, text string) {
	w.Helper()
	p, err := dialPeer(door)
	w.must(err)
	defer p.drop()
	w.must(p.exchange(header, "</stream:features>"))
	_ = p.say("<starttls xmlns='" + nsTLS + "'/>" + text)
	_, err = p.until("<proceed xmlns='" + nsTLS + "'/>")
	if err == nil {
		err = p.secure()
	}
	if err != nil { // the rest came too late to be thrown away, and is no handshake
		return
	}
	w.must(p.say(header))
	got, err := p.until("</stream:features>")
	if err != nil || strings.Count(got, "<stream:stream") != 1 || strings.Contains(got, "<success") || strings.Contains(got, "<failure") {
		w.Errorf("after %.60q the encrypted stream begins with %q, %v", text, got, err)
	}
}

// Old versions are refused on every door, whatever else the client can do.
func TestReliability07Versions(t *testing.T) {
	w := start(t, configured([]string{unlimited}, nil))
	old := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11} //nolint:gosec // what is refused
	w.during(16, func() {
		for range 20 {
			c, err := net.Dial("tcp", w.Door("c2s-tls"))
			w.must(err)
			if err := tls.Client(c, old).Handshake(); err == nil || !strings.Contains(err.Error(), "protocol version") {
				t.Errorf("direct TLS 1.1: %v", err)
			}
			_ = c.Close()
			p := w.dial()
			w.must(p.exchange(header, "</stream:features>"))
			w.must(p.exchange("<starttls xmlns='"+nsTLS+"'/>", "<proceed xmlns='"+nsTLS+"'/>"))
			if err := tls.Client(p.conn, old).Handshake(); err == nil || !strings.Contains(err.Error(), "protocol version") {
				t.Errorf("STARTTLS with TLS 1.1: %v", err)
			}
			p.drop()
		}
	})
}

// A client that wants to shake hands a second time (CVE-2009-3555) is cut off.
func TestReliability07Renegotiation(t *testing.T) {
	w := start(t, configured([]string{unlimited}, nil))
	w.during(16, func() {
		for range 20 {
			tcp, err := net.Dial("tcp", w.Door("c2s-tls"))
			w.must(err)
			wire := &recordedConn{Conn: tcp}
			var keys bytes.Buffer
			c := tls.Client(wire, &tls.Config{
				InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12, KeyLogWriter: &keys, //nolint:gosec // the test's own server
				CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256},
			})
			w.must(c.Handshake())
			_, err = io.WriteString(c, header)
			w.must(err)
			_, err = wire.Write(wire.again(keys.String(), 2)) // records 0 and 1 were Finished and the header
			w.must(err)
			got, err := io.ReadAll(c)
			var alert *net.OpError
			if !errors.As(err, &alert) || alert.Op != "remote error" || bytes.Count(got, []byte("<stream:stream")) > 1 {
				t.Errorf("a second handshake: %q, %v", got, err)
			}
			_ = c.Close()
		}
	})
}

// recordedConn remembers what was sent and received.
type recordedConn struct {
	net.Conn
	sent, received []byte
}

func (r *recordedConn) Write(b []byte) (int, error) {
	r.sent = append(r.sent, b...)
	return r.Conn.Write(b)
}

func (r *recordedConn) Read(b []byte) (int, error) {
	n, err := r.Conn.Read(b)
	r.received = append(r.received, b[:n]...)
	return n, err
}

// again is the client's first message once more, as a record of the session
// that has been set up with TLS 1.2 and AES-128-GCM: the library sends none.
func (r *recordedConn) again(keyLog string, seq uint64) []byte {
	const recordHeader, randomAt, handshake = 5, 5 + 4 + 2, 22
	fields := strings.Fields(keyLog) // CLIENT_RANDOM random secret
	clientRandom, _ := hex.DecodeString(fields[1])
	master, _ := hex.DecodeString(fields[2])
	serverRandom := r.received[randomAt : randomAt+32]
	block := prf(master, append(append([]byte("key expansion"), serverRandom...), clientRandom...), 40) // RFC 5246 §6.3
	key, iv := block[:16], block[32:36]

	hello := r.sent[recordHeader : recordHeader+int(binary.BigEndian.Uint16(r.sent[3:]))]
	nonce := binary.BigEndian.AppendUint64(nil, seq)
	additional := append(binary.BigEndian.AppendUint64(nil, seq), handshake, 3, 3, byte(len(hello)>>8), byte(len(hello)))
	aesBlock, _ := aes.NewCipher(key)
	gcm, _ := cipher.NewGCM(aesBlock)
	payload := append(nonce, gcm.Seal(nil, append(iv[:4:4], nonce...), hello, additional)...) // RFC 5288 §3
	return append([]byte{handshake, 3, 3, byte(len(payload) >> 8), byte(len(payload))}, payload...)
}

// prf is RFC 5246 §5 with SHA-256.
func prf(secret, seed []byte, n int) (out []byte) {
	mac := func(parts ...[]byte) []byte {
		h := hmac.New(sha256.New, secret)
		for _, p := range parts {
			h.Write(p)
		}
		return h.Sum(nil)
	}
	for a := mac(seed); len(out) < n; a = mac(a) {
		out = append(out, mac(a, seed)...)
	}
	return out[:n]
}

// A login is bound to its connection (RFC 9266): one that somebody passes on
// over a connection of his own fails, and so does a client that was told that
// the server cannot do this (RFC 5802 §6).
func TestReliability07ChannelBinding(t *testing.T) {
	w := start(t, configured([]string{unlimited}, nil))
	w.account("victim", secret)
	connect := func() (*peer, scram.ChannelBinding) {
		p := w.dial()
		w.must(p.exchange(header, "</stream:features>"))
		w.must(p.exchange("<starttls xmlns='"+nsTLS+"'/>", "<proceed xmlns='"+nsTLS+"'/>"))
		w.must(p.secure())
		w.must(p.exchange(header, "</stream:features>"))
		if !bytes.Contains(p.got, []byte("<channel-binding type='tls-exporter'/>")) {
			t.Fatalf("not offered: %s", p.got)
		}
		state := p.conn.(*tls.Conn).ConnectionState()
		own, err := scram.NewTLSExporterBinding(&state)
		w.must(err)
		return p, own
	}
	login := func(p *peer, mechanism string, converse func(*scram.Client) *scram.ClientConversation) bool {
		client, err := scram.SHA256.NewClient("victim", secret, "")
		w.must(err)
		conv := converse(client)
		first, err := conv.Step("")
		w.must(err)
		w.must(p.say("<auth xmlns='" + nsSASL + "' mechanism='" + mechanism + "'>" + b64(first) + "</auth>"))
		_, err = p.until("xmlns='" + nsSASL + "'>")
		w.must(err)
		answer, err := p.until("</")
		w.must(err)
		challenge, err := base64.StdEncoding.DecodeString(answer)
		if err != nil { // <failure/>
			return false
		}
		final, err := conv.Step(string(challenge))
		w.must(err)
		w.must(p.say("<response xmlns='" + nsSASL + "'>" + b64(final) + "</response>"))
		before, err := p.until("xmlns='" + nsSASL + "'>")
		w.must(err)
		return strings.HasSuffix(before, "<success ")
	}
	w.during(16, func() {
		for range 10 {
			p, own := connect()
			if !login(p, "SCRAM-SHA-256-PLUS", func(c *scram.Client) *scram.ClientConversation { return c.NewConversationWithChannelBinding(own) }) {
				t.Errorf("bound to its own connection: %s", tail(string(p.got)))
			}
			p, _ = connect()
			if login(p, "SCRAM-SHA-256-PLUS", func(c *scram.Client) *scram.ClientConversation { return c.NewConversationWithChannelBinding(own) }) {
				t.Error("a login that belongs to another connection")
			}
			p, _ = connect()
			if login(p, "SCRAM-SHA-256", (*scram.Client).NewConversationAdvertisingChannelBinding) {
				t.Error("a client that was told that there is no channel binding")
			}
		}
	})
}
