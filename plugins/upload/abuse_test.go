package upload_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"parley/plugins/plugintest"
)

// raw sends a request as it is and returns the answer's status; 0: there was none.
func raw(t *testing.T, p *person, h *plugintest.House, request string, body io.Reader) int {
	t.Helper()
	c, err := tls.Dial("tcp", h.Door("https"), p.http.Transport.(*http.Transport).TLSClientConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	if body != nil {
		_, _ = io.Copy(c, body) // the server may have hung up
		_ = c.CloseWrite()
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0
	}
	defer func() { _ = resp.Body.Close() }()
	return resp.StatusCode
}

// target is an address as a request line has it.
func target(t *testing.T, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	return u.RequestURI()
}

// What is longer, shorter, or of no length at all is not what the slot is for; and
// what breaks off leaves nothing, and the slot as it was (XEP-0363 §7).
func TestReliability19SizeLies(t *testing.T) {
	dir := t.TempDir()
	h := begin(t, plugintest.Options{}, dir)
	romeo := login(t, h, "romeo", dir)
	s := romeo.must("a.bin", 10, "")
	romeo.status(http.StatusRequestEntityTooLarge, http.MethodPut, s.put, make([]byte, 11))
	romeo.status(http.StatusBadRequest, http.MethodPut, s.put, make([]byte, 9))
	resp, _ := romeo.do(http.MethodPut, s.put, io.MultiReader(strings.NewReader("0123456789"))) // chunked
	if resp.StatusCode != http.StatusLengthRequired {
		t.Errorf("chunked: %s", resp.Status)
	}
	head := "PUT " + target(t, s.put) + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n"
	raw(t, romeo, h, head, strings.NewReader("01234")) // and no more
	romeo.status(http.StatusNotFound, http.MethodGet, s.get, nil)
	eventually(t, "the slot is free again", func() bool {
		resp, _ := romeo.do(http.MethodPut, s.put, strings.NewReader("0123456789"))
		return resp.StatusCode == http.StatusCreated
	})
	if got := romeo.fetch(s.get); string(got) != "0123456789" {
		t.Errorf("%q", got)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "files", "tmp", "*")); len(left) > 0 || len(objects(t, dir)) != 1 {
		t.Errorf("left: %v", left)
	}
}

// A slot takes one file, whoever is quicker.
func TestReliability19SlotReuse(t *testing.T) {
	dir := t.TempDir()
	h := begin(t, plugintest.Options{}, dir)
	romeo := login(t, h, "romeo", dir)
	s := romeo.must("a.bin", 100_000, "")
	var mu sync.Mutex
	got := map[int]int{}
	var group sync.WaitGroup
	for i := range 8 {
		group.Go(func() {
			resp, _ := romeo.do(http.MethodPut, s.put, bytes.NewReader(bytes.Repeat([]byte{byte(i)}, 100_000)))
			mu.Lock()
			defer mu.Unlock()
			got[resp.StatusCode]++
		})
	}
	group.Wait()
	if got[http.StatusCreated] != 1 || got[http.StatusConflict] != 7 {
		t.Errorf("%v", got)
	}
	b := romeo.fetch(s.get)
	if !bytes.Equal(b, bytes.Repeat(b[:1], 100_000)) {
		t.Error("two files in one")
	}
	romeo.status(http.StatusConflict, http.MethodPut, s.put, make([]byte, 100_000))
}

// Nobody makes a slot up, or uses that of another file.
func TestReliability19ForgedSlots(t *testing.T) {
	dir := t.TempDir()
	h := begin(t, plugintest.Options{}, dir)
	romeo := login(t, h, "romeo", dir)
	a, b := romeo.must("a.bin", 1, ""), romeo.must("b.bin", 1, "")
	_, proof, _ := strings.Cut(a.put, "?")
	for _, forged := range []string{b.get + "?" + proof, a.get, a.get + "?key=", a.put + "x", strings.Replace(a.put, "a.bin?", "?", 1) + "&x", "https://" + h.Door("https") + "/upload/x/y?" + proof} {
		resp, _ := romeo.do(http.MethodPut, forged, strings.NewReader("x"))
		if resp.StatusCode != http.StatusForbidden && resp.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", forged, resp.Status)
		}
	}
	// The name belongs to the address: nobody passes a file on under another one.
	c := romeo.send("c.bin", "", []byte("x"))
	romeo.status(http.StatusNotFound, http.MethodGet, strings.Replace(c.get, "c.bin", "c.exe", 1), nil)
}

// Paths lead to files and nowhere else.
func TestReliability19Traversal(t *testing.T) {
	dir := t.TempDir()
	h := begin(t, plugintest.Options{}, dir)
	romeo := login(t, h, "romeo", dir)
	s := romeo.send("a.bin", "", []byte("x"))
	token := strings.Split(s.get, "/")[4]
	for _, path := range []string{
		"/upload/../parley.db", "/upload/..%2f..%2fparley.db", "/upload/" + token + "/../../parley.db", "/upload/" + token + "/..%2F..%2Fparley.db",
		"/upload/" + token + "/a.bin/../../../parley.db", "/upload/" + token, "/upload/", "/upload//a.bin", "/upload/" + token + "/a.bin%00", `/upload/..\..\parley.db`,
	} {
		got := raw(t, romeo, h, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", nil)
		if got == http.StatusOK || got >= 500 {
			t.Errorf("%s: %d", path, got)
		}
	}
}

// What is called a picture and is none is shown by no browser; what a slot is for is
// what it takes.
func TestReliability19TypeSpoofing(t *testing.T) {
	dir := t.TempDir()
	h := begin(t, plugintest.Options{}, dir)
	romeo := login(t, h, "romeo", dir)
	s := romeo.must("a.png", len(onePixel), "image/png")
	romeo.status(http.StatusUnsupportedMediaType, http.MethodPut, s.put, []byte(onePixel), "Content-Type", "text/html")
	romeo.status(http.StatusUnsupportedMediaType, http.MethodPut, s.put, []byte(onePixel), "Content-Type", "image/png", "Content-Encoding", "gzip")
	romeo.status(http.StatusCreated, http.MethodPut, s.put, []byte(onePixel), "Content-Type", "image/png; charset=x")
	resp, _ := romeo.do(http.MethodGet, s.get, nil)
	if resp.Header.Get("Content-Type") != "application/octet-stream" || !strings.HasPrefix(resp.Header.Get("Content-Disposition"), "attachment") {
		t.Errorf("%v", resp.Header)
	}
	s = romeo.must("b.gif", len(onePixel), "")
	romeo.status(http.StatusCreated, http.MethodPut, s.put, []byte(onePixel), "Content-Type", "image/gif")
	if resp, _ = romeo.do(http.MethodGet, s.get, nil); resp.Header.Get("Content-Type") != "image/gif" {
		t.Errorf("%v", resp.Header)
	}
}

// An upload that hardly moves is cut off, and its slot is free again; one that is
// slow enough is not (slowloris).
func TestReliability19SlowPut(t *testing.T) {
	dir := t.TempDir()
	h := begin(t, plugintest.Options{Config: "servers: {streamer: {https: '127.0.0.1:0', components: {upload-http: {patience: 1s, min_rate: 100KiB}}}}"}, dir)
	romeo := login(t, h, "romeo", dir)
	s := romeo.must("a.bin", 200_000, "")
	head := "PUT " + target(t, s.put) + " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n"
	began := time.Now()
	if got := raw(t, romeo, h, head, &drip{left: 200_000, each: 100, every: 50 * time.Millisecond}); got != http.StatusRequestTimeout && got != 0 {
		t.Errorf("a slow one: %d", got)
	}
	t.Logf("cut off after %s", time.Since(began))
	eventually(t, "the slot is free again", func() bool {
		resp, _ := romeo.do(http.MethodPut, s.put, &drip{left: 200_000, each: 20_000, every: 10 * time.Millisecond})
		return resp.StatusCode == http.StatusCreated
	})
}

// drip is content that comes a little at a time.
type drip struct {
	left, each int
	every      time.Duration
}

func (d *drip) Read(p []byte) (int, error) {
	if d.left == 0 {
		return 0, io.EOF
	}
	time.Sleep(d.every)
	n := min(len(p), d.left, d.each)
	d.left -= n
	return n, nil
}

// Uploads that are under way do not hold up what is done to components.
func TestReliability19UploadsHoldNothingUp(t *testing.T) {
	dir := t.TempDir()
	h := begin(t, plugintest.Options{}, dir)
	romeo := login(t, h, "romeo", dir)
	s := romeo.must("a.bin", 10, "")
	c, err := tls.Dial("tcp", h.Door("https"), romeo.http.Transport.(*http.Transport).TLSClientConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := fmt.Fprintf(c, "PUT %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n01234", target(t, s.put)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the upload begins", func() bool {
		resp, _ := romeo.do(http.MethodPut, s.put, strings.NewReader("0123456789"))
		return resp.StatusCode == http.StatusConflict
	})
	began := time.Now()
	if _, err := h.Host().Control().Stop(t.Context(), "test", "streamer", "upload-http"); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(began); d > patience/2 {
		t.Errorf("it took %s", d)
	}
}

// A full disk is said with 507, and what is there goes on being read; when there is
// room again it is taken (reliability row 30).
func TestReliability30UploadsOnAFullDisk(t *testing.T) {
	dir, disk := t.TempDir(), t.TempDir()
	if err := syscall.Mount("tmpfs", disk, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("mounting a small tmpfs needs root: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(disk, syscall.MNT_DETACH) })
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Config: "data: " + dir + "\nstorage: {files: {path: " + disk + ", reserve: 64KiB}}\n" +
		"servers: {streamer: {https: '127.0.0.1:0'}, processor: {components: {upload: {sweep_interval: 1s}}}}"})
	romeo := login(t, h, "romeo", dir)
	large := bytes.Repeat([]byte("x"), 1<<20)
	first := romeo.send("a.bin", "", large)
	second := romeo.must("b.bin", 600<<10, "")
	if _, ok := romeo.slot("c.bin", 3<<20, "", ""); ok {
		t.Error("a slot for what there is no room for")
	}
	third := romeo.send("d.bin", "", bytes.Repeat([]byte("y"), 500<<10))
	resp := romeo.status(http.StatusInsufficientStorage, http.MethodPut, second.put, bytes.Repeat([]byte("z"), 600<<10))
	if resp.Header.Get("Retry-After") == "" {
		t.Error("it does not say when to try again")
	}
	if got := romeo.fetch(first.get); !bytes.Equal(got, large) {
		t.Errorf("%d bytes", len(got))
	}
	romeo.status(http.StatusNoContent, http.MethodDelete, third.put, nil)
	eventually(t, "it is taken when there is room", func() bool {
		resp, _ := romeo.do(http.MethodPut, second.put, bytes.NewReader(bytes.Repeat([]byte("z"), 600<<10)))
		return resp.StatusCode == http.StatusCreated
	})
}

// Whoever downloads and does not read is cut off.
func TestReliability19SlowGet(t *testing.T) {
	dir := t.TempDir()
	h := begin(t, plugintest.Options{Config: "servers: {streamer: {https: '127.0.0.1:0', components: {upload-http: {patience: 1s, min_rate: 10MiB}}}}"}, dir)
	romeo := login(t, h, "romeo", dir)
	s := romeo.send("a.bin", "", make([]byte, 16<<20))
	c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", h.Door("https"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	x := tls.Client(c, romeo.http.Transport.(*http.Transport).TLSClientConfig)
	if _, err := fmt.Fprintf(x, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", target(t, s.get)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(4 * time.Second) // longer than 16 MiB may take; nothing is read meanwhile
	n, err := io.Copy(io.Discard, x)
	if n >= 16<<20 || err == nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}
