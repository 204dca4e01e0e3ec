package pushsender

import (
	"context"
	"crypto/ecdh"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	webpush "github.com/SherClockHolmes/webpush-go"

	"parley/parser/stanza"
	"parley/stream"
)

// webPush is RFC 8030 with the encryption of RFC 8291 and the identity of RFC 8292,
// which UnifiedPush speaks, too.
type webPush struct {
	cfg             *Config
	client          *http.Client
	private, public string // base64url
}

func newWebPush(cfg *Config, client *http.Client) (*webPush, error) {
	k, err := curveKey(cfg.WebPush.Key.Reveal())
	if err != nil {
		return nil, err
	}
	private, err := k.Bytes()
	if err != nil {
		return nil, errCurve
	}
	public, err := k.PublicKey.Bytes()
	if err != nil {
		return nil, errCurve
	}
	return &webPush{cfg, client, encode64(private), encode64(public)}, nil
}

// maxEndpoint bounds an address, in bytes.
const maxEndpoint = 2048

// check implements sender.
func (w *webPush) check(r *registration) error {
	u, err := url.Parse(r.endpoint)
	switch {
	case err != nil || len(r.endpoint) > maxEndpoint || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.Fragment != "":
		return stanza.NewError(stanza.NotAcceptable, "endpoint: is an https address of at most 2048 bytes")
	case !w.cfg.Private && innerName(u.Hostname()):
		return stanza.NewError(stanza.NotAcceptable, "endpoint: its address is a private one")
	}
	key, err := decode64(r.p256dh)
	if err == nil {
		_, err = ecdh.P256().NewPublicKey(key)
	}
	if err != nil {
		return stanza.NewError(stanza.NotAcceptable, "p256dh: is the client's public key, 65 bytes in base64url (RFC 8291 §3.1)")
	}
	auth, err := decode64(r.auth)
	if err != nil || len(auth) != 16 {
		return stanza.NewError(stanza.NotAcceptable, "auth: is the client's secret, 16 bytes in base64url (RFC 8291 §3.2)")
	}
	r.p256dh, r.auth, r.app = encode64(key), encode64(auth), ""
	return nil
}

// innerName reports whether a name says by itself that it is none of outside; what
// others lead to is looked at when they are resolved.
func innerName(name string) bool {
	if ip, err := netip.ParseAddr(name); err == nil {
		return stream.Inside(ip)
	}
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	return name == "localhost" || strings.HasSuffix(name, ".localhost")
}

// host implements sender.
func (w *webPush) host(r *registration) string {
	u, err := url.Parse(r.endpoint)
	if err != nil {
		return ""
	}
	return u.Host
}

// payload is what the app gets, encrypted for it alone.
type payload struct {
	Node   string `json:"node"`
	Count  int    `json:"count"`
	Calls  int    `json:"calls,omitempty"`
	Body   string `json:"body,omitempty"`
	Sender string `json:"sender,omitempty"`
}

func (n *note) payload() payload { return payload{n.to.node, n.count, n.calls, n.body, n.sender} }

// topic is what a later note takes the place of: a call does not take that of
// messages.
func (n *note) topic() string {
	if n.urgent() {
		return "calls"
	}
	return "messages"
}

// ttl is how long the outside service keeps it.
func (c *Config) ttl(n *note) time.Duration {
	if n.urgent() {
		return c.CallTTL
	}
	return c.MessageTTL
}

// high reports whether the device is to be told at once.
func (c *Config) high(n *note) bool { return n.urgent() || c.Messages == high }

// Urgencies.
const (
	normal Urgency = "normal"
	high   Urgency = "high"
)

// send implements sender.
func (w *webPush) send(ctx context.Context, n *note) error {
	body, err := json.Marshal(n.payload())
	if err != nil {
		return fmt.Errorf("web push: %w", err)
	}
	o := &webpush.Options{
		HTTPClient: w.client, Topic: n.topic(), TTL: int(w.cfg.ttl(n).Seconds()), Urgency: webpush.UrgencyNormal, // RFC 8030 §5.2 to §5.4
		Subscriber: strings.TrimPrefix(w.cfg.WebPush.Contact, "mailto:"), VAPIDPublicKey: w.public, VAPIDPrivateKey: w.private,
	}
	if w.cfg.high(n) {
		o.Urgency = webpush.UrgencyHigh
	}
	r, err := webpush.SendNotificationWithContext(ctx, body, &webpush.Subscription{
		Endpoint: n.to.endpoint, Keys: webpush.Keys{Auth: n.to.auth, P256dh: n.to.p256dh},
	}, o)
	if err != nil {
		return fmt.Errorf("web push: %w", anonymous(err))
	}
	read(r)
	switch {
	case taken(r.StatusCode):
		return nil
	case r.StatusCode == http.StatusNotFound, r.StatusCode == http.StatusGone: // RFC 8030 §7.3
		return errGone
	}
	return fmt.Errorf("web push: %w", refused(r, "", time.Now()))
}
