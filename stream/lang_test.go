package stream_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"parley/plugins/plugintest"
)

// The language of a stream goes with each of its stanzas (RFC 6120 §8.1.5), so
// one that is no language tag would make a small stanza as large as a header.
func TestSecurityLanguageIsNoAmplifier(t *testing.T) {
	h := plugintest.Start(t, plugintest.Options{Plugins: parts()})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := h.Account(ctx, "romeo", "secret"); err != nil {
		t.Fatal(err)
	}
	w := dial(t, h)
	header := "<stream:stream to='localhost' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'"
	w.say(header + ">")
	w.until("</stream:features>")
	w.say("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>" + b64("\x00romeo\x00secret") + "</auth>")
	w.until("<success")
	w.say(header + " xml:lang='" + strings.Repeat("x", 100_000) + "'>")
	w.until("</stream:features>")
	w.say("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>r</resource></bind></iq>")
	w.until("</iq>")
	w.say("<presence/><message to='romeo@localhost/r' id='m'><body>x</body></message>")
	if got := len(w.until("</message>")); got > 1000 {
		t.Errorf("a message of 60 bytes arrives with %d", got)
	}
}
