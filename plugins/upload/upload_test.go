package upload_test

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"parley/plugins/accounts"
	"parley/plugins/plugintest"
	"parley/storage"
	"parley/storage/storagetest"
)

// onePixel is the smallest of pictures.
const onePixel = "GIF89a\x01\x00\x01\x00\x80\x00\x00\xff\xff\xff\x00\x00\x00!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"

// A picture goes up, comes down, in parts and conditionally, and harms nobody on the
// way (XEP-0363 §7, §8, §9.1; rule 70).
func TestSendAPicture(t *testing.T) {
	dir := t.TempDir()
	h := begin(t, plugintest.Options{}, dir)
	romeo, juliet := login(t, h, "romeo", dir), login(t, h, "juliet", dir)
	s := romeo.send("très cool.gif", "image/gif", []byte(onePixel))
	if !strings.HasPrefix(s.get, "https://localhost:") || !strings.HasSuffix(s.get, "/tr%C3%A8s%20cool.gif") {
		t.Errorf("address %s", s.get)
	}
	resp, body := juliet.do(http.MethodGet, s.get, nil)
	if string(body) != onePixel {
		t.Errorf("%d bytes", len(body))
	}
	etag := resp.Header.Get("ETag")
	for name, want := range map[string]string{
		"Content-Type": "image/gif", "Content-Disposition": "inline; filename*=UTF-8''tr%C3%A8s%20cool.gif", "Accept-Ranges": "bytes", "Access-Control-Allow-Origin": "*",
	} {
		if got := resp.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	resp, body = juliet.do(http.MethodHead, s.get, nil)
	if resp.StatusCode != http.StatusOK || resp.ContentLength != int64(len(onePixel)) || len(body) > 0 || resp.Header.Get("ETag") != etag {
		t.Errorf("HEAD: %s %d", resp.Status, resp.ContentLength)
	}
	resp, body = juliet.do(http.MethodGet, s.get, nil, "Range", "bytes=3-5")
	if resp.StatusCode != http.StatusPartialContent || string(body) != "89a" {
		t.Errorf("range: %s %q", resp.Status, body)
	}
	juliet.status(http.StatusRequestedRangeNotSatisfiable, http.MethodGet, s.get, nil, "Range", "bytes=1000-")
	juliet.status(http.StatusNotModified, http.MethodGet, s.get, nil, "If-None-Match", etag)
	juliet.status(http.StatusMethodNotAllowed, http.MethodPost, s.get, nil)
	resp = juliet.status(http.StatusNoContent, http.MethodOptions, s.put, nil, "Origin", "https://chat.example", "Access-Control-Request-Method", "PUT")
	if !strings.Contains(resp.Header.Get("Access-Control-Allow-Methods"), "PUT") || !strings.Contains(resp.Header.Get("Access-Control-Allow-Headers"), "Content-Type") {
		t.Errorf("preflight: %v", resp.Header)
	}
	// Who has only the address for reading cannot write or delete.
	juliet.status(http.StatusForbidden, http.MethodDelete, s.get, nil)
	juliet.status(http.StatusForbidden, http.MethodDelete, s.get+"?key=x", nil)
	romeo.status(http.StatusNoContent, http.MethodDelete, s.put, nil)
	juliet.status(http.StatusNotFound, http.MethodGet, s.get, nil)
	romeo.status(http.StatusNotFound, http.MethodDelete, s.put, nil)
}

// Every answer, whatever was uploaded, keeps browsers from running it.
func TestSecurityUploadHeaders(t *testing.T) {
	dir := t.TempDir()
	h := begin(t, plugintest.Options{}, dir)
	romeo := login(t, h, "romeo", dir)
	page := []byte("<html><script>alert(1)</script></html>")
	for _, c := range []struct{ typ, want string }{
		{"text/html", "application/octet-stream"},
		{"image/svg+xml", "image/svg+xml"},
		{"application/pdf", "application/pdf"},
		{"image/png", "application/octet-stream"}, // it is none
	} {
		s := romeo.send("x", c.typ, page)
		for _, url := range []string{s.get, s.get + "x"} {
			resp, _ := romeo.do(http.MethodGet, url, nil)
			if resp.Header.Get("X-Content-Type-Options") != "nosniff" || !strings.Contains(resp.Header.Get("Content-Security-Policy"), "default-src 'none'") ||
				!strings.Contains(resp.Header.Get("Content-Security-Policy"), "sandbox") {
				t.Errorf("%s at %s: %v", c.typ, url, resp.Header)
			}
			if resp.StatusCode == http.StatusOK && (!strings.HasPrefix(resp.Header.Get("Content-Disposition"), "attachment") || resp.Header.Get("Content-Type") != c.want) {
				t.Errorf("%s: %s, %s", c.typ, resp.Header.Get("Content-Type"), resp.Header.Get("Content-Disposition"))
			}
		}
	}
}

// Addresses are random, and each has its own.
func TestSecurityUploadAddresses(t *testing.T) {
	dir := t.TempDir()
	romeo := login(t, begin(t, plugintest.Options{}, dir), "romeo", dir)
	seen := map[string]bool{}
	for range 20 {
		s := romeo.must("a", 1, "")
		key := strings.Split(s.get, "/")[4]
		_, proof, _ := strings.Cut(s.put, "?key=")
		if len(key) < 26 || len(proof) < 26 || seen[key] || seen[proof] || strings.Contains(s.get, "romeo") || strings.Contains(s.get, proof) {
			t.Errorf("%+v", s)
		}
		seen[key], seen[proof] = true, true
	}
}

// Content that is there already is stored once, and stays until nobody has it.
func TestTheSameFileTwice(t *testing.T) {
	dir := t.TempDir()
	h := begin(t, plugintest.Options{Config: "servers: {streamer: {https: '127.0.0.1:0'}, processor: {components: {upload: {sweep_interval: 1s}}}}"}, dir)
	romeo, juliet := login(t, h, "romeo", dir), login(t, h, "juliet", dir)
	content := bytes.Repeat([]byte("the same "), 10_000)
	first, second := romeo.send("a.txt", "text/plain", content), juliet.send("b.txt", "text/plain", content)
	if n := len(objects(t, dir)); n != 1 {
		t.Errorf("stored %d times", n)
	}
	romeo.status(http.StatusNoContent, http.MethodDelete, first.put, nil)
	if got := juliet.fetch(second.get); !bytes.Equal(got, content) {
		t.Errorf("%d bytes", len(got))
	}
	juliet.status(http.StatusNoContent, http.MethodDelete, second.put, nil)
	eventually(t, "the content goes", func() bool { return len(objects(t, dir)) == 0 })
}

// An account's files go with it.
func TestAccountsAreForgotten(t *testing.T) {
	dir := t.TempDir()
	h := begin(t, plugintest.Options{}, dir)
	romeo, juliet := login(t, h, "romeo", dir), login(t, h, "juliet", dir)
	s := romeo.send("a.txt", "text/plain", []byte("x"))
	kept := juliet.send("a.txt", "text/plain", []byte("x"))
	c, _ := h.Host().Contract("accounts")
	if err := c.(*accounts.Accounts).Delete(t.Context(), romeo.JID.Bare()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "romeo's file goes", func() bool {
		resp, _ := juliet.do(http.MethodGet, s.get, nil)
		return resp.StatusCode == http.StatusNotFound
	})
	if got := juliet.fetch(kept.get); string(got) != "x" {
		t.Errorf("%q", got)
	}
}

// eventually waits for what happens in the background.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it does not happen that %s", what)
		}
	}
}

// objects are the files in the store.
func objects(t *testing.T, dir string) (out []string) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "files", "??", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Files outlive the server, on both databases.
func TestFilesOutliveARestart(t *testing.T) {
	storagetest.EachConfig(t, func(t *testing.T, c storage.Config) {
		dir := t.TempDir()
		h := begin(t, plugintest.Options{Storage: func() storage.Config { return c }}, dir)
		romeo := login(t, h, "romeo", dir)
		s, open := romeo.send("a.bin", "", []byte("content")), romeo.must("b.bin", 3, "")
		port := h.Door("https")
		if err := h.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		moved := strings.NewReplacer(port[strings.LastIndexByte(port, ':'):]+"/", h.Door("https")[strings.LastIndexByte(h.Door("https"), ':'):]+"/")
		romeo = login(t, h, "romeo", dir)
		if got := romeo.fetch(moved.Replace(s.get)); string(got) != "content" {
			t.Errorf("%q", got)
		}
		romeo.status(http.StatusCreated, http.MethodPut, moved.Replace(open.put), []byte("abc"))
		if got := romeo.fetch(moved.Replace(open.get)); string(got) != "abc" {
			t.Errorf("%q", got)
		}
		if st, err := os.Stat(objects(t, dir)[0]); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", st, err)
		}
	})
}
