package pushsender

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"parley/parser/stanza"
	"parley/plugins/config"
)

// fakeAPNs answers as Apple's documents say ("Sending notification requests to
// APNs", "Handling notification responses from APNs"); it is a fake.
type fakeAPNs struct {
	t      *testing.T
	key    any // public
	status int
	reason string
	tokens map[string]bool
	last   *http.Request
	body   map[string]any
}

func (f *fakeAPNs) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor != 2 {
		f.t.Errorf("it speaks %s", r.Proto)
	}
	bearer, ok := strings.CutPrefix(r.Header.Get("authorization"), "bearer ")
	tok, err := jwt.Parse(bearer, func(x *jwt.Token) (any, error) {
		if x.Header["kid"] != "ABC123DEFG" {
			f.t.Errorf("kid is %v", x.Header["kid"])
		}
		return f.key, nil
	}, jwt.WithValidMethods([]string{"ES256"}), jwt.WithoutClaimsValidation())
	if !ok || err != nil {
		f.t.Errorf("token: %v", err)
		w.WriteHeader(http.StatusForbidden)
		return
	}
	if iss, _ := tok.Claims.GetIssuer(); iss != "DEF123GHIJ" {
		f.t.Errorf("iss is %s", iss)
	}
	f.tokens[bearer] = true
	f.last, f.body = r, map[string]any{}
	data, _ := io.ReadAll(r.Body)
	if err := json.Unmarshal(data, &f.body); err != nil || len(data) > 4096 {
		f.t.Errorf("body: %v, %d bytes", err, len(data))
	}
	w.WriteHeader(f.status)
	if f.reason != "" {
		_ = json.NewEncoder(w).Encode(map[string]any{"reason": f.reason})
	}
}

func TestAPNsFake(t *testing.T) {
	k, err := curveKey(testPrivate)
	if err != nil {
		t.Fatal(err)
	}
	fake := &fakeAPNs{t: t, key: &k.PublicKey, status: 200, tokens: map[string]bool{}}
	cfg := defaults()
	s := serve(t, cfg, fake.ServeHTTP)
	c := &clock{now: time.Now()}
	cfg.APNs = APNs{Key: config.NewSecret(keyForms(t)["PKCS #8"].text), KeyID: "ABC123DEFG", Team: "DEF123GHIJ", Apps: []string{"org.example.chat"}, URL: s.URL, Alert: "New message"}
	a, err := newAPNs(cfg, client(t, cfg, true), c)
	if err != nil {
		t.Fatal(err)
	}
	token := strings.Repeat("ab", 32)
	r := registration{node: "n", kind: kindAPNs, endpoint: token, app: "org.example.chat"}
	for name, bad := range map[string]registration{"no token": {app: r.app}, "a path": {app: r.app, endpoint: strings.Repeat("../", 30)}, "another app": {app: "org.example.other", endpoint: token}} {
		var se *stanza.Error
		if err := a.check(&bad); !errors.As(err, &se) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := a.check(&r); err != nil {
		t.Fatal(err)
	}
	n := &note{to: r, count: 3}
	expect := func(want map[string]string) {
		t.Helper()
		for name, v := range want {
			if got := fake.last.Header.Get(name); got != v {
				t.Errorf("%s is %q, not %q", name, got, v)
			}
		}
	}
	if err := a.send(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	if fake.last.URL.Path != "/3/device/"+token {
		t.Errorf("the path is %s", fake.last.URL.Path)
	}
	expect(map[string]string{"apns-topic": "org.example.chat", "apns-push-type": "alert", "apns-priority": "5", "apns-collapse-id": "messages"})
	aps, _ := fake.body["aps"].(map[string]any)
	if alert, _ := aps["alert"].(map[string]any); alert["body"] != "New message" || aps["mutable-content"] != 1.0 || fake.body["count"] != 3.0 || fake.body["body"] != nil || fake.body["sender"] != nil {
		t.Errorf("the body is %v", fake.body)
	}
	c.now = c.now.Add(10 * time.Minute)
	n.calls = 1
	if err := a.send(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	expect(map[string]string{"apns-priority": "10", "apns-collapse-id": "calls", "apns-expiration": jsonNumber(c.now.Add(cfg.CallTTL).Unix())})
	if len(fake.tokens) != 1 {
		t.Errorf("%d tokens", len(fake.tokens))
	}
	c.now = c.now.Add(apnsFor) // less than an hour
	if err := a.send(t.Context(), n); err != nil || len(fake.tokens) != 2 {
		t.Errorf("%v, %d tokens", err, len(fake.tokens))
	}
	for _, row := range []struct {
		status int
		reason string
		gone   bool
	}{{410, "Unregistered", true}, {400, "BadDeviceToken", true}, {400, "DeviceTokenNotForTopic", true}, {429, "TooManyRequests", false}, {403, "ExpiredProviderToken", false}, {500, "InternalServerError", false}, {503, "<script>", false}} {
		fake.status, fake.reason = row.status, row.reason
		err := a.send(t.Context(), n)
		if err == nil || errors.Is(err, errGone) != row.gone || strings.Contains(err.Error(), token) || strings.Contains(err.Error(), "script") {
			t.Errorf("%d %s: %v", row.status, row.reason, err)
		}
	}
}
