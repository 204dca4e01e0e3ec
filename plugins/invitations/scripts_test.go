package invitations_test

import (
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"

	"parley/plugins"
	"parley/plugins/admin"
	"parley/plugins/admin/client"
	"parley/plugins/admincommands"
	"parley/plugins/commands"
	"parley/plugins/invitations"
	"parley/plugins/plugintest"
	"parley/plugins/register"
)

func house() []plugins.Plugin {
	return plugintest.Basics(admin.Plugin, commands.Plugin, admincommands.Plugin, invitations.Plugin, register.Plugin)
}

func TestScripts(t *testing.T) {
	plugintest.Run(t, plugintest.Options{Plugins: house()}, "testdata/*.txtar")
}

func get(t *testing.T, h *plugintest.House, token, lang string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+h.Door("http")+"/invite/"+token, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept-Language", lang)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

// syncLog collects what a house logs.
type syncLog struct{ lines chan string }

func (l syncLog) Write(b []byte) (int, error) {
	select {
	case l.lines <- string(b):
	default:
	}
	return len(b), nil
}

// TestPage: what the administration has made is shown in the reader's language, with
// headers that keep the token in; nothing of it is in the log (XEP-0379 §3.3,
// XEP-0401 §5.2).
func TestPage(t *testing.T) {
	l := syncLog{make(chan string, 10000)}
	dir, err := os.MkdirTemp("", "invite") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Log: l, Config: "data: " + dir})
	c, err := client.Open(t.Context(), dir)
	for err != nil && t.Context().Err() == nil { // its door opens a moment later
		runtime.Gosched()
		c, err = client.Open(t.Context(), dir)
	}
	if err != nil {
		t.Fatal(err)
	}
	made, err := invitations.Client{Client: c}.Invite(t.Context(), "juliet@localhost", 1)
	if err != nil {
		t.Fatal(err)
	}
	if made.URI != "xmpp:juliet@localhost?register;preauth="+made.Token || len(made.Token) < 26 {
		t.Errorf("%+v", made)
	}
	for _, bad := range []string{"juliet@localhost", "juliet@elsewhere.example", "juliet@localhost/x", ""} { // the first is invited already
		if _, err := (invitations.Client{Client: c}).Invite(t.Context(), bad, 1); err == nil {
			t.Errorf("%q is invited", bad)
		}
	}
	for lang, want := range map[string]string{"en": "You are invited", "de, zh;q=0.5": "邀请您", "zh-TW": "邀请您", "": "You are invited", "fr": "You are invited"} {
		res, body := get(t, h, made.Token, lang)
		if res.StatusCode != http.StatusOK || !strings.Contains(body, want) || !strings.Contains(body, `href="xmpp:juliet@localhost?register;preauth=`+made.Token+`"`) || !strings.Contains(body, "<svg") {
			t.Errorf("%q: %s %s", lang, res.Status, body)
		}
		for name, want := range map[string]string{"Referrer-Policy": "no-referrer", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"} {
			if got := res.Header.Get(name); got != want {
				t.Errorf("%s: %q", name, got)
			}
		}
		if csp := res.Header.Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'none'") {
			t.Errorf("CSP %q", csp)
		}
	}
	if res, body := get(t, h, "guess", "en"); res.StatusCode != http.StatusNotFound || !strings.Contains(body, "unknown") || strings.Contains(body, "guess") {
		t.Errorf("a guess: %s %s", res.Status, body)
	}
	if err := h.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	close(l.lines)
	for line := range l.lines {
		if strings.Contains(line, made.Token) {
			t.Errorf("the token is logged: %s", line)
		}
	}
}
