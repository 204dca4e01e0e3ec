package upload_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"parley/parser"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/accounts"
	"parley/plugins/disco"
	"parley/plugins/ping"
	"parley/plugins/plugintest"
	"parley/plugins/presence"
	"parley/plugins/roster"
	"parley/plugins/upload"
	"parley/processor"
	"parley/router"
	"parley/stream"
)

func house() []plugins.Plugin {
	return []plugins.Plugin{
		router.Plugin, processor.Plugin, parser.Plugin, stream.Plugin, accounts.Plugin, disco.Plugin, ping.Plugin, presence.Plugin, roster.Plugin, upload.Plugin,
	}
}

func TestScripts(t *testing.T) {
	plugintest.Run(t, plugintest.Options{Plugins: house()}, "testdata/*.txtar")
}

// patience ends a wait for something that does not come.
const patience = 30 * time.Second

// withHTTPS opens the door that files go through.
const withHTTPS = "servers: {streamer: {https: '127.0.0.1:0'}}"

// begin starts a house with an HTTPS door, and whatever else the configuration
// says; its data is in dir.
func begin(t *testing.T, o plugintest.Options, dir string) *plugintest.House {
	t.Helper()
	if o.Plugins == nil {
		o.Plugins = house()
	}
	files := "files: {path: " + filepath.Join(dir, "files") + "}"
	if strings.Contains(o.Config, "storage: {") {
		o.Config = strings.Replace(o.Config, "storage: {", "storage: {"+files+", ", 1)
	} else {
		o.Config += "\nstorage: {" + files + "}\n"
	}
	o.Config += "\ndata: " + dir + "\n"
	if !strings.Contains(o.Config, "https:") {
		o.Config += withHTTPS
	}
	return plugintest.Start(t, o)
}

// person is a client, and its browser.
type person struct {
	t *testing.T
	*plugintest.Client
	http *http.Client
	ids  int
}

func login(t *testing.T, h *plugintest.House, user, dir string) *person {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := h.Login(ctx, user, "r")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return &person{t: t, Client: c, http: browser(t, dir)}
}

// browser trusts the house's certificate, and no other.
func browser(t *testing.T, dir string) *http.Client {
	t.Helper()
	pem, err := os.ReadFile(filepath.Join(dir, "tls", "self-signed.crt"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		t.Fatal("no certificate")
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, ServerName: "localhost", MinVersion: tls.VersionTLS12}, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience}
}

// ask sends a request to the service and returns the answer.
func (p *person) ask(typ, payload string) *stanza.Element {
	p.t.Helper()
	p.ids++
	id := fmt.Sprintf("u%d", p.ids)
	if err := p.Send("<iq type='" + typ + "' id='" + id + "' to='upload.localhost'>" + payload + "</iq>"); err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	for {
		el, err := p.Next(ctx)
		if err != nil {
			p.t.Fatal(err)
		}
		if el.Get("id") == id {
			return el
		}
	}
}

// slot is a pair of addresses.
type slot struct{ put, get string }

// slot asks for one; false: it was refused.
func (p *person) slot(name string, size int, typ, more string) (slot, bool) {
	p.t.Helper()
	el := p.ask("get", fmt.Sprintf("<request xmlns='%s' filename='%s' size='%d' content-type='%s'>%s</request>", upload.NS, name, size, typ, more))
	s := el.Child(upload.NS, "slot")
	if s == nil {
		return slot{}, false
	}
	return slot{s.Child(upload.NS, "put").Get("url"), s.Child(upload.NS, "get").Get("url")}, true
}

// must is slot for one that is given.
func (p *person) must(name string, size int, typ string) slot {
	p.t.Helper()
	s, ok := p.slot(name, size, typ, "")
	if !ok {
		p.t.Fatalf("no slot for %s", name)
	}
	return s
}

// do makes an HTTP request; header are pairs.
func (p *person) do(method, url string, body io.Reader, header ...string) (*http.Response, []byte) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(p.t.Context(), method, url, body)
	if err != nil {
		p.t.Fatal(err)
	}
	if d, ok := body.(*drip); ok {
		req.ContentLength = int64(d.left)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := p.http.Do(req)
	if err != nil {
		p.t.Fatalf("%s %s: %v", method, url, err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp, b
}

// status is do for a request whose answer has this status.
func (p *person) status(want int, method, url string, body []byte, header ...string) *http.Response {
	p.t.Helper()
	resp, text := p.do(method, url, bytes.NewReader(body), header...)
	if resp.StatusCode != want {
		p.t.Errorf("%s: %s %s, want %d", method, resp.Status, text, want)
	}
	return resp
}

// send uploads content, and returns its addresses.
func (p *person) send(name, typ string, content []byte) slot {
	p.t.Helper()
	s := p.must(name, len(content), typ)
	p.status(http.StatusCreated, http.MethodPut, s.put, content, "Content-Type", typ)
	return s
}

// fetch is what is at an address.
func (p *person) fetch(url string) []byte {
	p.t.Helper()
	resp, b := p.do(http.MethodGet, url, nil)
	if resp.StatusCode != http.StatusOK {
		p.t.Fatalf("%s: %s", resp.Status, b)
	}
	return b
}
