package pushsender_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/parser/stanza"
	"parley/plugins/plugintest"
)

type person struct {
	t *testing.T
	*plugintest.Client
	ids int
}

func login(t *testing.T, h *plugintest.House, user string) *person {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := h.Login(ctx, user, "r")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return &person{t: t, Client: c}
}

func (p *person) say(xml string) {
	p.t.Helper()
	if err := p.Send(xml); err != nil {
		p.t.Fatal(err)
	}
}

// ask sends a request and returns its result.
func (p *person) ask(to, payload string) *stanza.Element {
	p.t.Helper()
	p.ids++
	id := fmt.Sprintf("q%d", p.ids)
	p.say("<iq type='set' id='" + id + "'" + to + ">" + payload + "</iq>")
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	for {
		el, err := p.Next(ctx)
		if err != nil {
			p.t.Fatal(err)
		}
		if el.Get("id") != id {
			continue
		}
		if el.Get("type") != "result" {
			p.t.Fatalf("%s: %s", payload, el.Bytes(""))
		}
		return el
	}
}

// command runs a command with a form and returns the result's fields.
func (p *person) command(node string, fields ...string) map[string]string {
	p.t.Helper()
	const ns = "http://jabber.org/protocol/commands"
	c := p.ask(" to='localhost'", "<command xmlns='"+ns+"' node='parley:push:0#"+node+"'/>").Child(ns, "command")
	if len(fields) > 0 {
		form := "<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>parley:push:0</value></field>"
		for i := 0; i < len(fields); i += 2 {
			form += "<field var='" + fields[i] + "'><value>" + fields[i+1] + "</value></field>"
		}
		c = p.ask(" to='localhost'", "<command xmlns='"+ns+"' node='parley:push:0#"+node+"' sessionid='"+c.Get("sessionid")+"'>"+form+"</x></command>").Child(ns, "command")
	}
	got := map[string]string{}
	x := c.Child("jabber:x:data", "x")
	if x == nil {
		return got
	}
	for f := range x.Elements() {
		if v := f.Child("jabber:x:data", "value"); v != nil {
			got[f.Get("var")] = v.Text()
		}
	}
	return got
}

// enable registers what the fields say, and enables it (XEP-0357 §5). People send no
// presence in these tests: their messages wait.
func (p *person) enable(fields ...string) (node string) {
	p.t.Helper()
	got := p.command("register", fields...)
	p.ask("", "<enable xmlns='urn:xmpp:push:0' jid='"+got["jid"]+"' node='"+got["node"]+"'><x xmlns='jabber:x:data' type='submit'>"+
		"<field var='FORM_TYPE'><value>http://jabber.org/protocol/pubsub#publish-options</value></field><field var='secret'><value>"+got["secret"]+"</value></field></x></enable>")
	return got["node"]
}

// webPush are the fields of a registration with the receiver.
func (r *receiver) webPush(more ...string) []string {
	return append([]string{"kind", "webpush", "endpoint", r.url + "/up/very-secret", "p256dh", base64.RawURLEncoding.EncodeToString(r.key.PublicKey().Bytes()),
		"auth", base64.RawURLEncoding.EncodeToString(r.auth)}, more...)
}

const (
	call    = "<propose xmlns='urn:xmpp:jingle-message:0' id='c1'><description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/></propose>"
	message = "<body>Wherefore art thou?</body>"
)

func (p *person) writes(content string) {
	p.t.Helper()
	p.ids++
	p.say(fmt.Sprintf("<message to='juliet@localhost' type='chat' id='m%d'>%s</message>", p.ids, content))
}

// count is what a query over the house's database counts.
func count(t *testing.T, h *plugintest.House, sql string) int {
	t.Helper()
	var n int
	if err := h.DB().QueryRow(t.Context(), sql).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func await(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: does not happen", what)
		}
	}
}

// A device hears how many messages wait and nothing else of them; calls are urgent
// and short (RFC 8030 §5.2, §5.3, §5.4, RFC 8291 §3.4, RFC 8292 §2).
func TestWebPush(t *testing.T) {
	r := newReceiver(t)
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Config: r.config("")})
	romeo, juliet := login(t, h, "romeo"), login(t, h, "juliet")
	node := juliet.enable(r.webPush()...)
	romeo.writes(message)
	n := r.next()
	if c := n.content; c.Node != node || c.Count != 1 || c.Calls != 0 || c.Body != "" || c.Sender != "" {
		t.Errorf("it says %+v", c)
	}
	if h := n.header; h.Get("Urgency") != "normal" || h.Get("TTL") != "86400" || h.Get("Topic") != "messages" {
		t.Errorf("the header is %v", h)
	}
	romeo.writes(call)
	n = r.next()
	if n.content.Calls != 1 || n.header.Get("Urgency") != "high" || n.header.Get("TTL") != "30" || n.header.Get("Topic") != "calls" {
		t.Errorf("a call is %+v", n)
	}
}

// What stands for the text is sent when the operator and the client want it.
func TestTextIfWanted(t *testing.T) {
	r := newReceiver(t)
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Config: r.config(", text: true")})
	romeo, juliet := login(t, h, "romeo"), login(t, h, "juliet")
	juliet.enable(r.webPush()...)
	other := r.webPush("text", "1")
	other[3] += "/other"
	juliet.enable(other...)
	romeo.writes(message)
	got := map[string]int{r.next().content.Body: 1}
	got[r.next().content.Body]++
	if got[""] != 1 || got["New message"] != 1 {
		t.Errorf("the texts are %v", got)
	}
}

// Who is gone is not told any more, by nobody (XEP-0357 §7.1, RFC 8030 §7.3); a wrong
// secret opens nothing.
func TestGone(t *testing.T) {
	r := newReceiver(t)
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Config: r.config("")})
	romeo, juliet := login(t, h, "romeo"), login(t, h, "juliet")
	node := juliet.enable(r.webPush()...)
	juliet.ask("", "<enable xmlns='urn:xmpp:push:0' jid='push.localhost' node='guess'/>")
	r.answers(func(w http.ResponseWriter) { w.WriteHeader(http.StatusGone) })
	romeo.writes(message)
	if got := r.next().content.Node; got != node {
		t.Errorf("%s is told", got)
	}
	await(t, "the end", func() bool {
		return count(t, h, `SELECT count(*) FROM push_target`) == 0 && count(t, h, `SELECT count(*) FROM push_registration`) == 0
	})
}

// An outside service that wants to be left alone is, and nothing is lost: what
// comes meanwhile is told together (RFC 9110 §10.2.3).
func TestRetryAfterIsHonoured(t *testing.T) {
	r := newReceiver(t)
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Config: r.config("")})
	romeo, juliet := login(t, h, "romeo"), login(t, h, "juliet")
	juliet.enable(r.webPush()...)
	r.answers(func(w http.ResponseWriter) {
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	romeo.writes(message)
	r.next()
	r.answers(nil)
	await(t, "the failure", func() bool {
		return count(t, h, `SELECT count(*) FROM push_registration WHERE failures = 1 AND retry_at > 0`) == 1
	})
	if n := r.next(); n.content.Count != 1 {
		t.Errorf("the second try says %+v", n.content)
	}
	await(t, "all is well", func() bool {
		return count(t, h, `SELECT count(*) FROM push_registration WHERE failures = 0 AND retry_at = 0`) == 1 &&
			count(t, h, `SELECT count(*) FROM push_target WHERE waiting = 0 AND failed = 0`) == 1
	})
}

// A notice is told when the outside service has taken it and not before: who is
// killed in between tells it again.
func TestNothingIsLostWhenKilled(t *testing.T) {
	r := newReceiver(t)
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Config: r.config("")})
	romeo, juliet := login(t, h, "romeo"), login(t, h, "juliet")
	juliet.enable(r.webPush()...)
	hang := make(chan struct{})
	r.answers(func(w http.ResponseWriter) { <-hang; w.WriteHeader(http.StatusServiceUnavailable) })
	release := sync.OnceFunc(func() { close(hang) })
	defer release()
	romeo.writes(message)
	r.next()
	if n := count(t, h, `SELECT waiting FROM push_target`); n != 1 {
		t.Errorf("%d wait while it is under way", n)
	}
	if err := h.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	release()
	r.answers(nil)
	if err := h.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := h.DB().Exec(t.Context(), `UPDATE push_target SET claimed_until = 0`); err != nil { // its minute is over
		t.Fatal(err)
	}
	if n := r.next(); n.content.Count != 1 {
		t.Errorf("it says %+v", n.content)
	}
}

// Neither keys nor where devices are reached are in the log, at its finest.
func TestSecretsStayOutOfTheLog(t *testing.T) {
	r := newReceiver(t)
	log := &buffer{}
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Config: r.config(""), Log: log})
	romeo, juliet := login(t, h, "romeo"), login(t, h, "juliet")
	juliet.enable(r.webPush()...)
	r.answers(func(w http.ResponseWriter) { w.WriteHeader(http.StatusForbidden) })
	romeo.writes(message)
	r.next()
	await(t, "the failure in the log", func() bool { return strings.Contains(log.String(), "an outside push service fails") })
	r.answers(func(http.ResponseWriter) { panic(http.ErrAbortHandler) })
	if _, err := h.DB().Exec(t.Context(), `UPDATE push_target SET due_at = 1`); err != nil {
		t.Fatal(err)
	}
	if _, err := h.DB().Exec(t.Context(), `UPDATE push_registration SET retry_at = 0`); err != nil {
		t.Fatal(err)
	}
	r.next()
	await(t, "the second failure in the log", func() bool { return strings.Count(log.String(), "an outside push service fails") > 1 })
	for name, secret := range map[string]string{"vapid_key": vapidKey, "the endpoint": "very-secret", "auth": base64.RawURLEncoding.EncodeToString(r.auth), "a token": "vapid t="} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("%s is in the log", name)
		}
	}
}

// buffer is a log that several write to.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
