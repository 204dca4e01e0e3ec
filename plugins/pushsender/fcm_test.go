package pushsender

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"parley/plugins/config"
)

// fakeFCM answers as Google's documents say (projects.messages.send, ErrorCode;
// "Using OAuth 2.0 for server to server applications"); it is a fake.
type fakeFCM struct {
	t       *testing.T
	key     any // public
	url     string
	issued  int
	good    string
	status  int
	answer  string
	message map[string]any
}

func (f *fakeFCM) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/token" {
		if r.FormValue("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
			f.t.Errorf("grant_type is %s", r.FormValue("grant_type"))
		}
		tok, err := jwt.Parse(r.FormValue("assertion"), func(*jwt.Token) (any, error) { return f.key, nil },
			jwt.WithValidMethods([]string{"RS256"}), jwt.WithoutClaimsValidation())
		if err != nil {
			f.t.Errorf("assertion: %v", err)
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		claims, _ := tok.Claims.(jwt.MapClaims)
		if claims["aud"] != f.url+"/token" || claims["scope"] != fcmScope || claims["iss"] != "sender@example.iam.gserviceaccount.com" {
			f.t.Errorf("claims are %v", claims)
		}
		f.issued++
		f.good = "access-" + jsonNumber(int64(f.issued))
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": f.good, "expires_in": 3599, "token_type": "Bearer"})
		return
	}
	if r.Header.Get("Authorization") != "Bearer "+f.good {
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"error":{"status":"UNAUTHENTICATED"}}`)
		return
	}
	if r.URL.Path != "/v1/projects/example-1/messages:send" {
		f.t.Errorf("the path is %s", r.URL.Path)
	}
	var body struct {
		Message map[string]any `json:"message"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		f.t.Error(err)
	}
	f.message = body.Message
	w.WriteHeader(f.status)
	_, _ = io.WriteString(w, f.answer)
}

func TestFCMFake(t *testing.T) {
	public, keyPEM := rsaPair(t)
	fake := &fakeFCM{t: t, key: public, status: 200, answer: `{"name":"projects/example-1/messages/1"}`}
	cfg := defaults()
	s := serve(t, cfg, fake.ServeHTTP)
	fake.url = s.URL
	account, _ := json.Marshal(map[string]string{
		"type": "service_account", "project_id": "example-1", "private_key_id": "k1", "private_key": keyPEM,
		"client_email": "sender@example.iam.gserviceaccount.com", "token_uri": s.URL + "/token",
	})
	cfg.FCM = FCM{Account: config.NewSecret(string(account)), URL: s.URL}
	c := &clock{now: time.Now()}
	f, err := newFCM(cfg, client(t, cfg, true), c)
	if err != nil {
		t.Fatal(err)
	}
	r := registration{node: "n", kind: kindFCM, endpoint: "token:APA91b"}
	if err := f.check(&r); err != nil {
		t.Fatal(err)
	}
	n := &note{to: r, count: 2}
	android := func() map[string]any { m, _ := fake.message["android"].(map[string]any); return m }
	data := func() map[string]any { m, _ := fake.message["data"].(map[string]any); return m }
	if err := f.send(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	if a, d := android(), data(); a["priority"] != "NORMAL" || a["collapse_key"] != "messages" || a["ttl"] != "86400s" || d["count"] != "2" || len(d) != 2 || fake.message["token"] != r.endpoint {
		t.Errorf("the message is %v", fake.message)
	}
	n.calls = 1
	if err := f.send(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	if a := android(); a["priority"] != "HIGH" || a["collapse_key"] != "calls" || a["ttl"] != "30s" {
		t.Errorf("a call is %v", fake.message)
	}
	if fake.issued != 1 {
		t.Errorf("%d tokens", fake.issued)
	}
	c.now = c.now.Add(time.Hour)
	if err := f.send(t.Context(), n); err != nil || fake.issued != 2 {
		t.Errorf("%v, %d tokens", err, fake.issued)
	}
	fake.good = "revoked"
	if err := f.send(t.Context(), n); err == nil || errors.Is(err, errGone) || strings.Contains(err.Error(), "access-") {
		t.Errorf("a token that is not good: %v", err)
	}
	if err := f.send(t.Context(), n); err != nil || fake.issued != 3 {
		t.Errorf("the next one: %v, %d", err, fake.issued)
	}
	for _, row := range []struct {
		status int
		answer string
		gone   bool
	}{
		{404, `{"error":{"code":404,"status":"NOT_FOUND","details":[{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"UNREGISTERED"}]}}`, true},
		{403, `{"error":{"status":"PERMISSION_DENIED","details":[{"errorCode":"SENDER_ID_MISMATCH"}]}}`, true},
		{400, `{"error":{"status":"INVALID_ARGUMENT","details":[{"fieldViolations":[{"field":"message.token"}]},{"errorCode":"INVALID_ARGUMENT"}]}}`, true},
		{400, `{"error":{"status":"INVALID_ARGUMENT","details":[{"errorCode":"INVALID_ARGUMENT"}]}}`, false},
		{429, `{"error":{"status":"RESOURCE_EXHAUSTED","details":[{"errorCode":"QUOTA_EXCEEDED"}]}}`, false},
		{503, `<html>`, false},
	} {
		fake.status, fake.answer = row.status, row.answer
		if err := f.send(t.Context(), n); err == nil || errors.Is(err, errGone) != row.gone {
			t.Errorf("%s: %v", row.answer, err)
		}
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.send(canceled, n); err == nil {
		t.Error("it was sent")
	}
}

func FuzzFCMCode(f *testing.F) {
	f.Add([]byte(`{"error":{"details":[{"errorCode":"UNREGISTERED"}]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got := word(fcmCode(b)); len(got) > 64 {
			t.Errorf("%q", got)
		}
	})
}
