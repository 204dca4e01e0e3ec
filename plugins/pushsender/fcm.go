package pushsender

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/sync/semaphore"

	"parley/parser/stanza"
	"parley/plugins"
)

// fcm is Google's service: the HTTP v1 API (projects.messages.send), with an access
// token for a service account (RFC 7523).
type fcm struct {
	cfg     *Config
	client  *http.Client
	clock   plugins.Clock
	account account
	key     any
	where   string

	turn  *semaphore.Weighted // one asks for a token at a time; it guards token
	token ticket
}

// account is what Google's file says.
type account struct {
	Project string `json:"project_id"`
	KeyID   string `json:"private_key_id"`
	Key     string `json:"private_key"`
	Email   string `json:"client_email"`
	TokenAt string `json:"token_uri"`
}

// fcmScope is what the token is good for.
const fcmScope = "https://www.googleapis.com/auth/firebase.messaging"

func newFCM(cfg *Config, client *http.Client, clock plugins.Clock) (*fcm, error) {
	f := &fcm{cfg: cfg, client: client, clock: clock, turn: semaphore.NewWeighted(1)}
	if err := json.Unmarshal([]byte(cfg.FCM.Account.Reveal()), &f.account); err != nil {
		return nil, errors.New("it is not the JSON file of a service account")
	}
	a := &f.account
	if a.Project == "" || a.Email == "" || strings.Trim(a.Project, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return nil, errors.New("project_id and client_email are needed")
	}
	if u, err := url.Parse(a.TokenAt); err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("token_uri is no https address")
	}
	u, err := url.Parse(cfg.FCM.URL)
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	f.where = u.Host
	f.key, err = rsaKey(a.Key)
	return f, err
}

// maxToken bounds a registration token, in bytes.
const maxToken = 4096

// check implements sender.
func (f *fcm) check(r *registration) error {
	if r.endpoint == "" || len(r.endpoint) > maxToken || strings.ContainsFunc(r.endpoint, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return stanza.NewError(stanza.NotAcceptable, "endpoint: is the registration token of the app")
	}
	r.p256dh, r.auth, r.app = "", "", ""
	return nil
}

// host implements sender.
func (f *fcm) host(*registration) string { return f.where }

// bearer is the access token, a new one when the last one is over.
func (f *fcm) bearer(ctx context.Context) (string, error) {
	if err := f.turn.Acquire(ctx, 1); err != nil {
		return "", fmt.Errorf("access token: %w", err)
	}
	defer f.turn.Release(1)
	now := f.clock.Now()
	if f.token.good(now) {
		return f.token.text, nil
	}
	t := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
		"iss": f.account.Email, "scope": fcmScope, "aud": f.account.TokenAt, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(),
	})
	t.Header["kid"] = f.account.KeyID
	assertion, err := t.SignedString(f.key)
	if err != nil {
		return "", errors.New("the assertion is not signed")
	}
	form := url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {assertion}} // RFC 7523 §2.1
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.account.TokenAt, strings.NewReader(form.Encode()))
	if err != nil {
		return "", errors.New("access token: no request")
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r, err := f.client.Do(req)
	if err != nil {
		return "", fmt.Errorf("access token: %w", anonymous(err))
	}
	body := read(r)
	var got struct {
		Token   string `json:"access_token"`
		Expires int64  `json:"expires_in"` // seconds
	}
	if !taken(r.StatusCode) {
		return "", fmt.Errorf("access token: %w", refused(r, "", now))
	}
	if err := json.Unmarshal(body, &got); err != nil || got.Token == "" || got.Expires < 0 {
		return "", errors.New("access token: the answer has none")
	}
	// It is renewed a minute before it ends.
	f.token = ticket{got.Token, now, now.Add(min(time.Duration(min(got.Expires, 86400))*time.Second, time.Hour) - time.Minute)}
	return got.Token, nil
}

// forget lets the next note have another token.
func (f *fcm) forget(ctx context.Context, text string) {
	if f.turn.Acquire(ctx, 1) != nil {
		return
	}
	defer f.turn.Release(1)
	if f.token.text == text {
		f.token = ticket{}
	}
}

type fcmMessage struct {
	Token   string            `json:"token"`
	Data    map[string]string `json:"data"`
	Android struct {
		Priority string `json:"priority"`
		TTL      string `json:"ttl"` // "30s"
		Collapse string `json:"collapse_key"`
	} `json:"android"`
}

// send implements sender.
func (f *fcm) send(ctx context.Context, n *note) error {
	m := fcmMessage{Token: n.to.endpoint, Data: map[string]string{"node": n.to.node, "count": strconv.Itoa(n.count)}}
	for name, value := range map[string]string{"body": n.body, "sender": n.sender} {
		if value != "" {
			m.Data[name] = value
		}
	}
	if n.calls > 0 {
		m.Data["calls"] = strconv.Itoa(n.calls)
	}
	m.Android.Priority, m.Android.Collapse = "NORMAL", n.topic()
	if f.cfg.high(n) {
		m.Android.Priority = "HIGH"
	}
	m.Android.TTL = strconv.Itoa(int(f.cfg.ttl(n).Seconds())) + "s"
	body, err := json.Marshal(map[string]any{"message": &m})
	if err != nil {
		return fmt.Errorf("fcm: %w", err)
	}
	bearer, err := f.bearer(ctx)
	if err != nil {
		return fmt.Errorf("fcm: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.cfg.FCM.URL+"/v1/projects/"+f.account.Project+"/messages:send", bytes.NewReader(body))
	if err != nil {
		return errors.New("fcm: no request")
	}
	req.Header.Set("Authorization", "Bearer "+bearer)
	req.Header.Set("Content-Type", "application/json")
	r, err := f.client.Do(req)
	if err != nil {
		return fmt.Errorf("fcm: %w", anonymous(err))
	}
	answer := read(r)
	if taken(r.StatusCode) {
		return nil
	}
	code := fcmCode(answer)
	switch {
	case code == "UNREGISTERED", code == "SENDER_ID_MISMATCH", code == badToken:
		return errGone
	case r.StatusCode == http.StatusUnauthorized:
		f.forget(ctx, bearer)
	}
	return fmt.Errorf("fcm: %w", refused(r, word(code), f.clock.Now()))
}

// badToken stands for an INVALID_ARGUMENT that is the token's fault.
const badToken = "BAD_TOKEN"

// fcmCode is what is wrong (google.rpc.Status with FcmError or BadRequest).
func fcmCode(answer []byte) string {
	var said struct {
		Error struct {
			Status  string `json:"status"`
			Details []struct {
				Code       string `json:"errorCode"`
				Violations []struct {
					Field string `json:"field"`
				} `json:"fieldViolations"`
			} `json:"details"`
		} `json:"error"`
	}
	if json.Unmarshal(answer, &said) != nil {
		return ""
	}
	code := said.Error.Status
	for _, d := range said.Error.Details {
		for _, v := range d.Violations {
			if v.Field == "message.token" {
				return badToken
			}
		}
		if d.Code != "" {
			code = d.Code
		}
	}
	return code
}
