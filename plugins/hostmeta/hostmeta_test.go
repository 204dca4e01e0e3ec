package hostmeta_test

import (
	"encoding/json"
	"encoding/xml"
	"io"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"parley/parser"
	"parley/plugins"
	"parley/plugins/hostmeta"
	"parley/plugins/plugintest"
	"parley/processor"
	"parley/router"
	"parley/stream"
	"parley/stream/bosh"
	"parley/stream/websocket"
)

func house(more ...plugins.Plugin) []plugins.Plugin {
	return append([]plugins.Plugin{router.Plugin, processor.Plugin, parser.Plugin, stream.Plugin, hostmeta.Plugin}, more...)
}

type link struct {
	Rel  string `xml:"rel,attr"`
	Href string `xml:"href,attr"`
}

func get(t *testing.T, h *plugintest.House, method, path, host, proto string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+h.Door("http")+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	if proto != "" {
		req.Header.Set("X-Forwarded-Proto", proto)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, body
}

// both reads the two formats, which must say the same (XEP-0156 §2.2).
func both(t *testing.T, h *plugintest.House, host, proto string) []link {
	t.Helper()
	resp, body := get(t, h, http.MethodGet, "/.well-known/host-meta", host, proto)
	if got := resp.Header.Get("Content-Type"); got != "application/xrd+xml" {
		t.Errorf("XRD is %s", got)
	}
	var x struct {
		XMLName xml.Name `xml:"http://docs.oasis-open.org/ns/xri/xrd-1.0 XRD"`
		Links   []link   `xml:"http://docs.oasis-open.org/ns/xri/xrd-1.0 Link"`
	}
	if err := xml.Unmarshal(body, &x); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	resp, body = get(t, h, http.MethodGet, "/.well-known/host-meta.json", host, proto)
	if got := resp.Header.Get("Content-Type"); got != "application/jrd+json" {
		t.Errorf("JRD is %s", got)
	}
	if got := resp.Header.Get("Access-Control-Allow-Origin"); got != "*" { // XEP-0156 §3
		t.Errorf("Access-Control-Allow-Origin %q", got)
	}
	var j struct{ Links []link }
	if err := json.Unmarshal(body, &j); err != nil || j.Links == nil {
		t.Fatalf("%s: %v", body, err)
	}
	if diff := cmp.Diff(x.Links, j.Links); diff != "" && len(x.Links)+len(j.Links) > 0 {
		t.Error(diff)
	}
	return x.Links
}

const rel = "urn:xmpp:alt-connections:websocket"

// XEP-0156 §2.2: only secure addresses are derived from a request.
func TestDerived(t *testing.T) {
	h := plugintest.Start(t, plugintest.Options{Plugins: house(websocket.Plugin)})
	for _, tt := range []struct{ host, proto, want string }{
		{"example.org", "https", "wss://example.org/xmpp-websocket"},
		{"example.org:8443", "HTTPS", "wss://example.org:8443/xmpp-websocket"},
		{"[2001:db8::1]:8443", "https", "wss://[2001:db8::1]:8443/xmpp-websocket"},
		{"example.org", "", ""}, // no https door, so no secure address
		{"example.org", "http", ""},
	} {
		var want []link
		if tt.want != "" {
			want = []link{{rel, tt.want}}
		}
		if diff := cmp.Diff(want, both(t, h, tt.host, tt.proto)); diff != "" {
			t.Errorf("%s %s: %s", tt.host, tt.proto, diff)
		}
	}
	resp, body := get(t, h, http.MethodOptions, "/.well-known/host-meta", "example.org", "")
	if resp.StatusCode != http.StatusNoContent || resp.Header.Get("Access-Control-Allow-Methods") == "" || len(body) > 0 {
		t.Errorf("OPTIONS: %s", resp.Status)
	}
	if resp, _ := get(t, h, http.MethodPost, "/.well-known/host-meta", "example.org", ""); resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("POST: %s", resp.Status)
	}
}

func TestHTTPSDoor(t *testing.T) {
	h := plugintest.Start(t, plugintest.Options{Plugins: house(websocket.Plugin), Config: `servers: {streamer: {https: "127.0.0.1:0"}}`})
	want := []link{{rel, "wss://example.org:" + port(t, h.Door("https")) + "/xmpp-websocket"}}
	if diff := cmp.Diff(want, both(t, h, "example.org:5280", "")); diff != "" {
		t.Error(diff)
	}
}

func port(t *testing.T, address string) string {
	t.Helper()
	for i := len(address) - 1; i >= 0; i-- {
		if address[i] == ':' {
			return address[i+1:]
		}
	}
	t.Fatalf("address %q", address)
	return ""
}

func TestPublicURL(t *testing.T) {
	for public, want := range map[string]string{
		"https://chat.example.org:5443": "wss://chat.example.org:5443/xmpp-websocket",
		"https://example.org/xmpp/":     "wss://example.org/xmpp/xmpp-websocket",
		"http://127.0.0.1:5280":         "ws://127.0.0.1:5280/xmpp-websocket", // only if the operator says so
	} {
		h := plugintest.Start(t, plugintest.Options{Plugins: house(websocket.Plugin), Config: "servers: {streamer: {components: {hostmeta: {public_url: \"" + public + "\"}}}}"})
		if diff := cmp.Diff([]link{{rel, want}}, both(t, h, "whatever.example", "")); diff != "" {
			t.Error(diff)
		}
	}
}

// XEP-0156 §2.1: BOSH is announced beside the WebSocket, where it is served.
func TestBOSH(t *testing.T) {
	h := plugintest.Start(t, plugintest.Options{Plugins: house(websocket.Plugin, bosh.Plugin)})
	want := []link{{rel, "wss://example.org/xmpp-websocket"}, {"urn:xmpp:alt-connections:xbosh", "https://example.org/http-bind"}}
	if diff := cmp.Diff(want, both(t, h, "example.org", "https")); diff != "" {
		t.Error(diff)
	}
}

// What is not served is not announced.
func TestNothingServed(t *testing.T) {
	h := plugintest.Start(t, plugintest.Options{Plugins: house()})
	if got := both(t, h, "example.org", "https"); len(got) != 0 {
		t.Errorf("announced %v", got)
	}
}

func TestValidate(t *testing.T) {
	for url, ok := range map[string]bool{"": true, "https://x.example": true, "wss://x.example": false, "x.example": false, "https://x.example/?q": false} {
		if err := (&hostmeta.Config{PublicURL: url}).Validate(); (err == nil) != ok {
			t.Errorf("%q: %v", url, err)
		}
	}
}
