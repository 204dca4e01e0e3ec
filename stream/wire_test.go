package stream_test

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/xdg-go/scram"

	"parley/parser/jid"
	"parley/plugins"
	"parley/plugins/accounts"
	"parley/plugins/plugintest"
)

// wire is a client made of bytes, for what no well-behaved one does.
type wire struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
	tls  *tls.Conn
}

// patience ends a test whose server says nothing.
const patience = 20 * time.Second

const header = "<stream:stream to='localhost' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"

func house(t *testing.T) *plugintest.House { return configured(t, "") }

func configured(t *testing.T, config string) *plugintest.House {
	t.Helper()
	h := plugintest.Start(t, plugintest.Options{Plugins: parts(), Config: config})
	c, _ := h.Host().Contract("accounts")
	a := c.(*accounts.Accounts)
	for _, user := range []string{"romeo", "juliet"} {
		if err := a.Create(context.Background(), jid.MustParse(user+"@localhost"), "secret-of-"+user); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

func dial(t *testing.T, h *plugintest.House) *wire {
	t.Helper()
	c, err := net.Dial("tcp", h.Door("c2s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return &wire{t: t, conn: c, r: bufio.NewReader(c)}
}

func (w *wire) say(s string) {
	w.t.Helper()
	if _, err := w.conn.Write([]byte(s)); err != nil {
		w.t.Fatal(err)
	}
}

// until reads up to and including end.
func (w *wire) until(end string) string {
	w.t.Helper()
	var b strings.Builder
	for !strings.HasSuffix(b.String(), end) {
		c, err := w.r.ReadByte()
		if err != nil {
			w.t.Fatalf("%v, waiting for %s after %s", err, end, b.String())
		}
		b.WriteByte(c)
	}
	return b.String()
}

func (w *wire) handshake() {
	w.t.Helper()
	w.tls = tls.Client(w.conn, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the test's own server
	if err := w.tls.Handshake(); err != nil {
		w.t.Fatal(err)
	}
	w.conn, w.r = w.tls, bufio.NewReader(w.tls)
}

// secure does STARTTLS and opens a stream; it returns the features.
func (w *wire) secure() string {
	w.t.Helper()
	w.say(header)
	w.until("</stream:features>")
	w.say("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
	w.until("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
	w.handshake()
	return w.features()
}

func (w *wire) features() string {
	w.t.Helper()
	w.say(header)
	return w.until("</stream:features>")
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func find(t *testing.T, in, pattern string) string {
	t.Helper()
	m := regexp.MustCompile(pattern).FindStringSubmatch(in)
	if m == nil {
		t.Fatalf("no %s in %s", pattern, in)
	}
	return m[1]
}

// RFC 6120 §5.4.3.3: what was sent before the handshake is no part of the
// stream inside (CVE-2011-0411).
func TestRule9Injection(t *testing.T) {
	w := dial(t, house(t))
	w.say(header)
	before := w.until("</stream:features>")
	w.say("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>" + header +
		"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>" + b64("\x00romeo\x00secret-of-romeo") + "</auth>")
	w.until("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
	// The server discards what it had read, or takes it for a broken
	// handshake; it never answers it.
	w.tls = tls.Client(w.conn, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the test's own server
	if err := w.tls.Handshake(); err != nil {
		return
	}
	w.conn, w.r = w.tls, bufio.NewReader(w.tls)
	after := w.features()
	if strings.Contains(after, "success") || strings.Contains(after, "failure") || strings.Contains(after, "starttls") {
		t.Fatalf("the server took what came before the handshake: %s", after)
	}
	id := "<stream:stream[^>]* id='([^']+)'"
	if find(t, before, id) == find(t, after, id) { // rule 2
		t.Fatal("the stream's id is the same after TLS")
	}
}

// A client need not wait for <success/> before it opens the next stream.
func TestPipelinedAfterAuth(t *testing.T) {
	w := dial(t, house(t))
	w.secure()
	w.say("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>" + b64("\x00romeo\x00secret-of-romeo") + "</auth>" +
		header + "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>r</resource></bind></iq>")
	w.until("romeo@localhost/r</jid></bind></iq>")
}

// The rest of an element has its time when the element has begun together with
// the login, too (reliability row 2).
func TestFault2HalfAnElementBehindTheBind(t *testing.T) {
	w := dial(t, configured(t, "servers: {streamer: {timeouts: {element: 100ms}}}"))
	w.secure()
	w.say("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>" + b64("\x00romeo\x00secret-of-romeo") + "</auth>" +
		header + "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq><message><body>and then")
	w.until("<connection-timeout xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>")
}

// RFC 6120 §6.3.8: nobody acts for somebody else.
func TestRule12Authzid(t *testing.T) {
	h := house(t)
	for authzid, ok := range map[string]bool{"": true, "romeo@localhost": true, "juliet@localhost": false, "romeo@elsewhere": false, "localhost": false} {
		w := dial(t, h)
		w.secure()
		w.say("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>" + b64(authzid+"\x00romeo\x00secret-of-romeo") + "</auth>")
		if !ok {
			if got := w.until("</failure>"); !strings.Contains(got, "<invalid-authzid/>") {
				t.Errorf("%s: %s", authzid, got)
			}
			continue
		}
		w.until("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>")
		w.features()
		w.say("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>")
		if got := w.until("</iq>"); !strings.Contains(got, "<jid>romeo@localhost/") {
			t.Errorf("%s: bound as %s", authzid, got)
		}
	}
}

// login does SCRAM in SASL2 and returns the last answer.
func (w *wire) login(conv *scram.ClientConversation, mechanism, extra string) string {
	w.t.Helper()
	first, err := conv.Step("")
	if err != nil {
		w.t.Fatal(err)
	}
	w.say("<authenticate xmlns='urn:xmpp:sasl:2' mechanism='" + mechanism + "'><initial-response>" + b64(first) + "</initial-response>" + extra + "</authenticate>")
	challenge := w.until(">")
	if strings.HasPrefix(challenge, "<failure") {
		return challenge + w.until("</failure>")
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(w.until("</challenge>"), "</challenge>"))
	if err != nil {
		w.t.Fatal(err)
	}
	final, err := conv.Step(string(raw))
	if err != nil {
		w.t.Fatal(err)
	}
	w.say("<response xmlns='urn:xmpp:sasl:2'>" + b64(final) + "</response>")
	answer := w.until(">")
	if strings.HasPrefix(answer, "<failure") {
		return answer + w.until("</failure>")
	}
	answer += w.until("</success>")
	raw, _ = base64.StdEncoding.DecodeString(find(w.t, answer, "<additional-data>([^<]*)<"))
	if _, err := conv.Step(string(raw)); err != nil || !conv.Valid() {
		w.t.Fatalf("the server did not prove itself: %v", err)
	}
	return answer
}

// RFC 5802 §6, XEP-0440: bound to the channel it works, bound to another one
// it does not, and a client that was kept from binding notices.
func TestRule14ChannelBinding(t *testing.T) {
	h := house(t)
	client, err := scram.SHA256.NewClient("romeo", "secret-of-romeo", "")
	if err != nil {
		t.Fatal(err)
	}
	w := dial(t, h)
	w.secure()
	state := w.tls.ConnectionState()
	exporter, err := scram.NewTLSExporterBinding(&state)
	if err != nil {
		t.Fatal(err)
	}
	end, err := scram.NewTLSServerEndpointBinding(&state)
	if err != nil {
		t.Fatal(err)
	}
	w.login(client.NewConversationWithChannelBinding(exporter), "SCRAM-SHA-256-PLUS", "")

	w = dial(t, h)
	w.secure()
	if got := w.login(client.NewConversationWithChannelBinding(exporter), "SCRAM-SHA-256-PLUS", ""); !strings.Contains(got, "<not-authorized ") {
		t.Errorf("another connection's binding: %s", got)
	}
	w.login(client.NewConversationWithChannelBinding(end), "SCRAM-SHA-256-PLUS", "")

	w = dial(t, h)
	w.secure()
	if got := w.login(client.NewConversationAdvertisingChannelBinding(), "SCRAM-SHA-256", ""); !strings.Contains(got, "<not-authorized ") {
		t.Errorf("a downgraded client: %s", got)
	}
}

// heldClock does not wait for what the throttle holds back, and counts it.
type heldClock struct {
	plugins.SystemClock
	held atomic.Int32
}

// heldBase is a delay that nothing else has.
const heldBase = time.Hour

func (c *heldClock) AfterFunc(d time.Duration, f func()) func() bool {
	if d < heldBase {
		return c.SystemClock.AfterFunc(d, f)
	}
	c.held.Add(1)
	go f()
	return func() bool { return false }
}

// Some clients offer a channel binding that they cannot have, say "y" next, and
// end with PLAIN. They guess no password, so nobody is slowed down for it.
func TestChannelBindingIsNoGuess(t *testing.T) {
	clock := &heldClock{}
	h := plugintest.Start(t, plugintest.Options{
		Plugins: parts(), Clock: clock,
		Config: "servers: {streamer: {components: {accounts: {throttle: {base: 1h, max: 100h}}}}}",
	})
	if err := h.Account(t.Context(), "romeo", "secret-of-romeo"); err != nil {
		t.Fatal(err)
	}
	failures := func(password string, conversation func(*scram.Client) *scram.ClientConversation) {
		t.Helper()
		client, err := scram.SHA256.NewClient("romeo", password, "")
		if err != nil {
			t.Fatal(err)
		}
		w := dial(t, h)
		w.secure()
		for range 4 {
			if got := w.login(conversation(client), "SCRAM-SHA-256", ""); !strings.Contains(got, "<not-authorized ") {
				t.Fatalf("logged in: %s", got)
			}
		}
	}
	failures("secret-of-romeo", (*scram.Client).NewConversationAdvertisingChannelBinding)
	if n := clock.held.Load(); n != 0 {
		t.Errorf("%d answers held back from a client that guessed nothing", n)
	}
	failures("a guess", (*scram.Client).NewConversation)
	if clock.held.Load() == 0 {
		t.Error("guesses are not held back")
	}
}

// XEP-0484: a token comes with a login, works once for its mechanism and
// client, is replaced by a newer one and forgotten on demand.
func TestFAST(t *testing.T) {
	h := house(t)
	const agent = "<user-agent id='d4565fa7-4d72-4749-b3d3-740edbf87770'/>"
	client, err := scram.SHA256.NewClient("romeo", "secret-of-romeo", "")
	if err != nil {
		t.Fatal(err)
	}
	w := dial(t, h)
	if got := w.secure(); !strings.Contains(got, "<fast xmlns='urn:xmpp:fast:0'><mechanism>HT-SHA-256-EXPR</mechanism>") {
		t.Fatalf("not announced: %s", got)
	}
	got := w.login(client.NewConversation(), "SCRAM-SHA-256", agent+"<bind xmlns='urn:xmpp:bind:0'/><request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-EXPR'/>")
	token := find(t, got, "<token [^>]*token='([^']+)'")
	if _, err := time.Parse(time.RFC3339, find(t, got, "<token [^>]*expiry='([^']+)'")); err != nil {
		t.Error(err)
	}
	use := func(token, mechanism, agent, fast string) string {
		w := dial(t, h)
		w.secure()
		var cb []byte
		if mechanism == "HT-SHA-256-EXPR" {
			state := w.tls.ConnectionState()
			if cb, err = state.ExportKeyingMaterial("EXPORTER-Channel-Binding", []byte{}, 32); err != nil {
				t.Fatal(err)
			}
		}
		mac := hmac.New(sha256.New, []byte(token))
		mac.Write([]byte("Initiator"))
		mac.Write(cb)
		w.say(fmt.Sprintf("<authenticate xmlns='urn:xmpp:sasl:2' mechanism='%s'><initial-response>%s</initial-response>%s%s</authenticate>",
			mechanism, b64("romeo\x00"+string(mac.Sum(nil))), agent, fast))
		first := w.until(">")
		if strings.HasPrefix(first, "<failure") {
			return w.until("</failure>")
		}
		return w.until("</success>")
	}
	const fast = "<fast xmlns='urn:xmpp:fast:0' count='%d'/>"
	for _, tc := range []struct {
		name, mechanism, agent, fast, in string
	}{
		{"good", "HT-SHA-256-EXPR", agent, fmt.Sprintf(fast, 1), "<authorization-identifier>romeo@localhost<"},
		{"replayed count", "HT-SHA-256-EXPR", agent, fmt.Sprintf(fast, 1), "<not-authorized "},
		{"other mechanism", "HT-SHA-256-NONE", agent, fmt.Sprintf(fast, 2), "<not-authorized "},
		{"other client", "HT-SHA-256-EXPR", "<user-agent id='another'/>", fmt.Sprintf(fast, 2), "<not-authorized "},
		{"bad count", "HT-SHA-256-EXPR", agent, fmt.Sprintf(fast, -2), "<malformed-request "},
		{"without <fast/>", "HT-SHA-256-EXPR", agent, "", "<malformed-request "},
		{"invalidated", "HT-SHA-256-EXPR", agent, "<fast xmlns='urn:xmpp:fast:0' count='3' invalidate='true'/>", "<authorization-identifier>"},
		{"after that", "HT-SHA-256-EXPR", agent, fmt.Sprintf(fast, 4), "<not-authorized "},
	} {
		if got := use(token, tc.mechanism, tc.agent, tc.fast); !strings.Contains(got, tc.in) || strings.Contains(got, "<token") {
			t.Errorf("%s: %s", tc.name, got)
		}
	}
}
