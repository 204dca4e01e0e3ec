package pushsender

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"parley/parser/stanza"
	"parley/plugins"
)

// apns is Apple's service: "Sending notification requests to APNs", with a token
// ("Establishing a token-based connection to APNs").
type apns struct {
	cfg    *Config
	client *http.Client
	clock  plugins.Clock
	key    any
	where  string

	mu    sync.Mutex // leaf
	token ticket
}

// A token is good for an hour, and another one not more often than every twenty
// minutes.
const (
	apnsFor   = 45 * time.Minute
	apnsNewer = 20 * time.Minute
)

func newAPNs(cfg *Config, client *http.Client, clock plugins.Clock) (*apns, error) {
	k, err := curveKey(cfg.APNs.Key.Reveal())
	switch {
	case err != nil:
		return nil, fmt.Errorf("key: %w", err)
	case cfg.APNs.KeyID == "" || cfg.APNs.Team == "" || len(cfg.APNs.Apps) == 0:
		return nil, errors.New("key_id, team_id and apps are needed")
	}
	u, err := url.Parse(cfg.APNs.URL)
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	return &apns{cfg: cfg, client: client, clock: clock, key: k, where: u.Host}, nil
}

// check implements sender.
func (a *apns) check(r *registration) error {
	if len(r.endpoint) < 64 || len(r.endpoint) > 200 || strings.Trim(r.endpoint, "0123456789abcdefABCDEF") != "" {
		return stanza.NewError(stanza.NotAcceptable, "endpoint: is the device token in hexadecimal")
	}
	if !slices.Contains(a.cfg.APNs.Apps, r.app) {
		return stanza.NewError(stanza.NotAcceptable, "app: this server does not send to the app; it knows "+strings.Join(a.cfg.APNs.Apps, ", "))
	}
	r.p256dh, r.auth = "", ""
	return nil
}

// host implements sender.
func (a *apns) host(*registration) string { return a.where }

// bearer is the token for the service.
func (a *apns) bearer() (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.clock.Now()
	if a.token.good(now) {
		return a.token.text, nil
	}
	t := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{"iss": a.cfg.APNs.Team, "iat": now.Unix()})
	t.Header["kid"] = a.cfg.APNs.KeyID
	text, err := t.SignedString(a.key)
	if err != nil {
		return "", errors.New("the token is not signed")
	}
	a.token = ticket{text, now, now.Add(apnsFor)}
	return text, nil
}

// forget lets the next note have another token.
func (a *apns) forget(text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.token.text == text && a.clock.Now().Sub(a.token.made) >= apnsNewer {
		a.token = ticket{}
	}
}

// apnsBody is the notification: the app asks the server and replaces what is shown
// (mutable-content), or its text is shown when it cannot.
type apnsBody struct {
	APS struct {
		Alert   map[string]string `json:"alert"`
		Sound   string            `json:"sound,omitempty"`
		Mutable int               `json:"mutable-content"`
	} `json:"aps"`
	payload
}

// send implements sender.
func (a *apns) send(ctx context.Context, n *note) error {
	b := apnsBody{payload: n.payload()}
	b.APS.Mutable, b.APS.Alert = 1, map[string]string{"body": a.cfg.APNs.Alert}
	if n.body != "" {
		b.APS.Alert["body"] = n.body
	}
	priority := "5"
	if a.cfg.high(n) {
		priority, b.APS.Sound = "10", "default"
	}
	body, err := json.Marshal(&b)
	if err != nil {
		return fmt.Errorf("apns: %w", err)
	}
	bearer, err := a.bearer()
	if err != nil {
		return fmt.Errorf("apns: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.cfg.APNs.URL+"/3/device/"+n.to.endpoint, bytes.NewReader(body))
	if err != nil {
		return errors.New("apns: no request")
	}
	for name, value := range map[string]string{
		"authorization": "bearer " + bearer, "apns-topic": n.to.app, "apns-push-type": "alert", "apns-priority": priority,
		"apns-collapse-id": n.topic(), "apns-expiration": strconv.FormatInt(a.clock.Now().Add(a.cfg.ttl(n)).Unix(), 10),
		"content-type": "application/json",
	} {
		req.Header.Set(name, value)
	}
	r, err := a.client.Do(req)
	if err != nil {
		return fmt.Errorf("apns: %w", anonymous(err))
	}
	var said struct {
		Reason string `json:"reason"`
	}
	_ = json.Unmarshal(read(r), &said) // without a reason the status says enough
	switch {
	case taken(r.StatusCode):
		return nil
	case r.StatusCode == http.StatusGone, slices.Contains(apnsGone, said.Reason):
		return errGone
	case said.Reason == "ExpiredProviderToken", said.Reason == "InvalidProviderToken":
		a.forget(bearer)
	}
	return fmt.Errorf("apns: %w", refused(r, word(said.Reason), a.clock.Now()))
}

// apnsGone are the reasons that will not mend themselves ("Handling notification
// responses from APNs").
var apnsGone = []string{"BadDeviceToken", "DeviceTokenNotForTopic", "Unregistered", "ExpiredToken"}

// word is what an outside service calls something, if it is a word: what goes to
// the log is bounded.
func word(s string) string {
	if len(s) > 64 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_") != "" {
		return "(no word)"
	}
	return s
}
