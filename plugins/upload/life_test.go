package upload_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/plugintest"
	"parley/plugins/upload"
	"parley/storage"
	"parley/storage/atrest"
	"parley/storage/blob"
	"parley/storage/storagetest"
)

// later is the machine's clock, and so much more.
type later struct {
	plugins.SystemClock
	by atomic.Int64
}

func (c *later) Now() time.Time { return time.Now().Add(time.Duration(c.by.Load())) }

func (c *later) add(d time.Duration) { c.by.Add(int64(d)) }

const quickSweep = "servers: {streamer: {https: '127.0.0.1:0'}, processor: {components: {upload: {sweep_interval: 1s, message: {keep: 30d}, ephemeral: {keep: 7d}}}}}"

// Files are there for as long as their purpose says, and no longer (XEP-0363 §5).
func TestFilesExpire(t *testing.T) {
	dir, clock := t.TempDir(), &later{}
	h := begin(t, plugintest.Options{Clock: clock, Config: quickSweep}, dir)
	romeo := login(t, h, "romeo", dir)
	put := func(purpose string) string {
		t.Helper()
		s, ok := romeo.slot("a.bin", 7, "", purpose)
		if !ok {
			t.Fatal("no slot")
		}
		romeo.status(http.StatusCreated, http.MethodPut, s.put, fmt.Appendf(nil, "%7d", romeo.ids))
		return s.get
	}
	in := func(d time.Duration) string {
		return "<ephemeral xmlns='" + upload.NSPurpose + "' expire-before='" + clock.Now().Add(d).UTC().Format(time.RFC3339) + "'/>"
	}
	message, short, long, permanent := put(""), put(in(time.Hour)), put(in(1000*time.Hour)), put("<permanent xmlns='"+upload.NSPurpose+"'/>")
	open := romeo.must("b.bin", 1, "")
	for _, c := range []struct {
		after time.Duration
		gone  []string
		here  []string
	}{
		{59 * time.Minute, nil, []string{message, short, long, permanent}},
		{2 * time.Minute, []string{short}, []string{message, long, permanent}},
		{7 * 24 * time.Hour, []string{short, long}, []string{message, permanent}},
		{24 * 24 * time.Hour, []string{short, long, message}, []string{permanent}},
	} {
		clock.add(c.after)
		for _, at := range c.here {
			resp := romeo.status(http.StatusOK, http.MethodGet, at, nil)
			if at == short && !strings.Contains(resp.Header.Get("Cache-Control"), "max-age=5") && !strings.Contains(resp.Header.Get("Cache-Control"), "max-age=6") { // about a minute
				t.Errorf("cached for too long: %s", resp.Header.Get("Cache-Control"))
			}
		}
		for _, at := range c.gone {
			romeo.status(http.StatusNotFound, http.MethodGet, at, nil)
		}
		eventually(t, "what is over is removed", func() bool { return len(objects(t, dir)) == len(c.here) })
	}
	romeo.status(http.StatusNotFound, http.MethodPut, open.put, []byte("x")) // the slot is over, too
	var rows int
	if err := h.DB().QueryRow(t.Context(), `SELECT COUNT(*) FROM upload_file`).Scan(&rows); err != nil || rows != 1 {
		t.Errorf("%d rows, %v", rows, err)
	}
}

// Objects that nobody knows go after a day; a file that was lost is marked, and well
// again when it is back or somebody sends the same.
func TestAudit(t *testing.T) {
	dir, clock := t.TempDir(), &later{}
	h := begin(t, plugintest.Options{Clock: clock, Config: "servers: {streamer: {https: '127.0.0.1:0'}, processor: {components: {upload: {sweep_interval: 1s, audit_interval: 1m}}}}"}, dir)
	romeo := login(t, h, "romeo", dir)
	s := romeo.send("a.txt", "text/plain", []byte("content"))
	files, err := blob.Open(blob.Config{Kind: "disk", Path: filepath.Join(dir, "files")})
	if err != nil {
		t.Fatal(err)
	}
	var strangers []blob.Key
	for range 3 {
		k := blob.NewKey()
		if _, err := files.Put(t.Context(), k, strings.NewReader("x"), 1); err != nil {
			t.Fatal(err)
		}
		strangers = append(strangers, k)
	}
	audit := func() {
		t.Helper()
		if err := upload.Audit(t.Context(), h.Host(), clock); err != nil {
			t.Fatal(err)
		}
	}
	audit()
	if n := len(objects(t, dir)); n != 4 {
		t.Errorf("young objects are removed: %d are left", n)
	}
	clock.add(25 * time.Hour)
	audit()
	for _, k := range strangers {
		if _, err := files.Stat(t.Context(), k); !errors.Is(err, blob.ErrNotFound) {
			t.Errorf("a stranger is left: %v", err)
		}
	}
	mine := objects(t, dir)[0]
	aside := filepath.Join(dir, "aside")
	if err := os.Rename(mine, aside); err != nil {
		t.Fatal(err)
	}
	audit()
	romeo.status(http.StatusNotFound, http.MethodGet, s.get, nil)
	if err := os.Rename(aside, mine); err != nil {
		t.Fatal(err)
	}
	audit()
	romeo.status(http.StatusOK, http.MethodGet, s.get, nil)
	if err := os.Remove(mine); err != nil {
		t.Fatal(err)
	}
	audit()
	again := romeo.send("b.txt", "text/plain", []byte("content"))
	for _, at := range []string{s.get, again.get} {
		if got := romeo.fetch(at); string(got) != "content" {
			t.Errorf("%q", got)
		}
	}
}

// photo is a picture that a camera has taken lying on its side.
func photo(t *testing.T, w, h int) []byte {
	t.Helper()
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			m.SetRGBA(x, y, color.RGBA{uint8(x), uint8(y), 100, 255})
		}
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, m, nil); err != nil {
		t.Fatal(err)
	}
	exif := "\xff\xe1\x00\x2dExif\x00\x00II*\x00\x08\x00\x00\x00\x01\x00\x12\x01\x03\x00\x01\x00\x00\x00\x06\x00\x00\x00\x00\x00\x00\x00GPS: 51.0"
	return append(append(bytes.Clone(b.Bytes()[:2]), exif...), b.Bytes()[2:]...)
}

// A picture has a small one, the right way up and bare; the large one stays as it is,
// since clients have told each other its hash.
func TestThumbnail(t *testing.T) {
	for _, encrypted := range []bool{false, true} {
		t.Run(fmt.Sprintf("encrypted %v", encrypted), func(t *testing.T) {
			dir := t.TempDir()
			h := begin(t, plugintest.Options{Config: keys(t, encrypted)}, dir)
			romeo, juliet := login(t, h, "romeo", dir), login(t, h, "juliet", dir)
			content := photo(t, 1000, 500)
			s := romeo.send("photo.jpg", "image/jpeg", content)
			if got := juliet.fetch(s.get); !bytes.Equal(got, content) {
				t.Errorf("%d bytes", len(got))
			}
			for range 2 { // the second one is kept
				small := juliet.fetch(s.get + "?thumbnail")
				c, kind, err := image.DecodeConfig(bytes.NewReader(small))
				if err != nil || kind != "jpeg" || c.Width != 256 || c.Height != 512 || bytes.Contains(small, []byte("GPS")) {
					t.Errorf("%s %d × %d, %v", kind, c.Width, c.Height, err)
				}
			}
			el := romeo.ask("get", "<file xmlns='parley:files:0' url='"+s.get+"'/>").Child(upload.NSFiles, "file")
			about := el.Child("urn:xmpp:file:metadata:0", "file")
			thumb := about.Child("urn:xmpp:thumbs:1", "thumbnail")
			if text(about, "width") != "500" || text(about, "height") != "1000" || text(about, "size") != fmt.Sprint(len(content)) || text(about, "name") != "photo.jpg" ||
				thumb.Get("uri") != s.get+"?thumbnail" || thumb.Get("width") != "256" {
				t.Errorf("%s", el.Bytes(""))
			}
			none := romeo.send("x.txt", "text/plain", []byte("x"))
			romeo.status(http.StatusNotFound, http.MethodGet, none.get+"?thumbnail", nil)
			broken := romeo.send("x.jpg", "image/jpeg", content[:200])
			for range 2 {
				romeo.status(http.StatusNotFound, http.MethodGet, broken.get+"?thumbnail", nil)
			}
			// What was made of a file goes with it.
			romeo.status(http.StatusNoContent, http.MethodDelete, s.put, nil)
			if err := upload.Sweep(t.Context(), h.Host()); err != nil {
				t.Fatal(err)
			}
			for _, at := range objects(t, dir) {
				if raw, err := os.ReadFile(at); err != nil || len(raw) > 1000 {
					t.Errorf("%s is left: %v", at, err)
				}
			}
		})
	}
}

func text(el *stanza.Element, name string) string {
	c := el.Child("urn:xmpp:file:metadata:0", name)
	if c == nil {
		return ""
	}
	return c.Text()
}

// keys switches encryption on.
func keys(t *testing.T, on bool) string {
	t.Helper()
	if !on {
		return ""
	}
	file := filepath.Join(t.TempDir(), "keys")
	if _, err := atrest.NewKey(file, time.Now(), -1, -1); err != nil {
		t.Fatal(err)
	}
	return "storage: {encryption: {keys_file: " + file + "}}\n"
}

// What is encrypted is nowhere in plain, neither in the store nor in the database,
// and comes back whole and in parts; the same file is stored once all the same.
func TestEncryptedAtRest(t *testing.T) {
	dir := t.TempDir()
	h := begin(t, plugintest.Options{Config: keys(t, true)}, dir)
	romeo := login(t, h, "romeo", dir)
	content := bytes.Repeat([]byte("the secret of romeo "), 20_000)
	s := romeo.send("secret-name.txt", "text/plain", content)
	romeo.send("other.txt", "text/plain", content)
	if n := len(objects(t, dir)); n != 1 {
		t.Errorf("stored %d times", n)
	}
	if got := romeo.fetch(s.get); !bytes.Equal(got, content) {
		t.Errorf("%d bytes", len(got))
	}
	resp, part := romeo.do(http.MethodGet, s.get, nil, "Range", "bytes=150000-150009")
	if resp.StatusCode != http.StatusPartialContent || !bytes.Equal(part, content[150_000:150_010]) {
		t.Errorf("%s %q", resp.Status, part)
	}
	raw, err := os.ReadFile(objects(t, dir)[0])
	if err != nil || bytes.Contains(raw, []byte("secret")) {
		t.Errorf("plain in the store, %v", err)
	}
	var what []byte
	if err := h.DB().QueryRow(t.Context(), `SELECT what FROM upload_file ORDER BY id LIMIT 1`).Scan(&what); err != nil || bytes.Contains(what, []byte("secret")) {
		t.Errorf("plain in the database: %q, %v", what, err)
	}
	// A bit that changed is noticed, before it is read.
	raw[len(raw)/2] ^= 1
	if err := os.WriteFile(objects(t, dir)[0], raw, 0o600); err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.get, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err = romeo.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if got, err := io.ReadAll(resp.Body); err == nil && resp.StatusCode == http.StatusOK || !bytes.HasPrefix(content, got) {
		t.Errorf("damage is not noticed: %s, %d bytes, %v", resp.Status, len(got), err)
	}
}

// picky does not want what says so.
type picky struct{ seen atomic.Int64 }

func (p *picky) Scan(_ context.Context, f upload.File, content io.Reader) error {
	b, err := io.ReadAll(content)
	if err != nil {
		return err
	}
	p.seen.Add(1)
	if int64(len(b)) == f.Size && bytes.Contains(b, []byte("EICAR")) {
		return fmt.Errorf("%s: %w", f.Name, upload.ErrUnwanted)
	}
	return nil
}

// A scanner looks at a file before anybody can fetch it.
func TestScanner(t *testing.T) {
	dir := t.TempDir()
	h := begin(t, plugintest.Options{}, dir)
	c, _ := h.Host().Contract(upload.Name)
	look := &picky{}
	remove := c.(*upload.Files).AddScanner(look)
	romeo := login(t, h, "romeo", dir)
	romeo.send("good.txt", "text/plain", []byte("good"))
	s := romeo.must("bad.txt", 5, "text/plain")
	romeo.status(http.StatusUnprocessableEntity, http.MethodPut, s.put, []byte("EICAR"))
	romeo.status(http.StatusNotFound, http.MethodGet, s.get, nil)
	romeo.status(http.StatusNotFound, http.MethodPut, s.put, []byte("fine."))
	if n := len(objects(t, dir)); n != 1 || look.seen.Load() != 2 {
		t.Errorf("%d objects, %d looks", n, look.seen.Load())
	}
	remove()
	romeo.send("bad.txt", "text/plain", []byte("EICAR"))
}

// An account sees what it has, page by page, and can take it back.
func TestAlbum(t *testing.T) {
	dir := t.TempDir()
	h := begin(t, plugintest.Options{}, dir)
	romeo, juliet := login(t, h, "romeo", dir), login(t, h, "juliet", dir)
	var sent []slot
	for i := range 5 {
		sent = append(sent, romeo.send(fmt.Sprintf("%d.txt", i), "text/plain", fmt.Appendf(nil, "%d", i)))
	}
	page := func(set string) (urls []string, last string) {
		t.Helper()
		el := romeo.ask("get", "<files xmlns='parley:files:0'><set xmlns='http://jabber.org/protocol/rsm'>"+set+"</set></files>").Child(upload.NSFiles, "files")
		for f := range el.Elements() {
			if f.Name.Local == "file" {
				urls = append(urls, f.Get("url"))
			}
		}
		if l := el.Child("http://jabber.org/protocol/rsm", "set").Child("http://jabber.org/protocol/rsm", "last"); l != nil {
			last = l.Text()
		}
		return urls, last
	}
	first, last := page("<max>2</max>")
	second, _ := page("<max>10</max><after>" + last + "</after>")
	if got := append(first, second...); len(first) != 2 || len(got) != 5 || got[0] != sent[0].get || got[4] != sent[4].get {
		t.Errorf("%v, %v", first, second)
	}
	if newest, _ := page("<max>2</max><before/>"); len(newest) != 2 || newest[1] != sent[4].get || newest[0] != sent[3].get {
		t.Errorf("the newest: %v", newest)
	}
	if el := juliet.ask("set", "<delete xmlns='parley:files:0' url='"+sent[0].get+"'/>"); el.Get("type") != "error" {
		t.Errorf("others delete: %s", el.Bytes(""))
	}
	if el := juliet.ask("get", "<file xmlns='parley:files:0' url='"+sent[0].get+"'/>"); el.Get("type") != "error" {
		t.Errorf("others ask: %s", el.Bytes(""))
	}
	if el := romeo.ask("set", "<delete xmlns='parley:files:0' url='"+sent[0].get+"'/>"); el.Get("type") != "result" {
		t.Errorf("%s", el.Bytes(""))
	}
	romeo.status(http.StatusNotFound, http.MethodGet, sent[0].get, nil)
}

// Any node takes what any other has given a slot for, and any other gives it out.
func TestNodesShareFiles(t *testing.T) {
	dir := t.TempDir()
	c := storagetest.Postgres(t)
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Nodes: 3, Storage: func() storage.Config { return c },
		Config: "storage: {files: {path: " + filepath.Join(dir, "files") + "}}\nservers: {processor: {components: {upload: {base_url: 'http://files.example'}}}}"})
	romeo := &person{t: t, Client: dial(t, h, "romeo"), http: http.DefaultClient}
	for i := range 3 {
		s := romeo.must("a.bin", 6, "")
		at := func(address string, node int) string {
			return strings.Replace(address, "files.example", h.DoorOf(node, "http"), 1)
		}
		content := fmt.Appendf(nil, "from %d", i)
		romeo.status(http.StatusCreated, http.MethodPut, at(s.put, i), content)
		for node := range 3 {
			if got := romeo.fetch(at(s.get, node)); !bytes.Equal(got, content) {
				t.Errorf("node %d: %q", node, got)
			}
			romeo.status(http.StatusConflict, http.MethodPut, at(s.put, node), content)
		}
		romeo.status(http.StatusNoContent, http.MethodDelete, at(s.put, (i+1)%3), nil)
		romeo.status(http.StatusNotFound, http.MethodGet, at(s.get, (i+2)%3), nil)
	}
}

func dial(t *testing.T, h *plugintest.House, user string) *plugintest.Client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := h.Login(ctx, user, "r")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// A whole house keeps its files in a bucket, encrypted or not.
func TestFilesInS3(t *testing.T) {
	at := os.Getenv("PARLEY_TEST_S3")
	if at == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("PARLEY_TEST_S3 is not set: .ci/tests3 start DIR prints it")
		}
		t.Skip("no S3 server: set PARLEY_TEST_S3 to what .ci/tests3 start DIR prints")
	}
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal("PARLEY_TEST_S3: not a URL")
	}
	password, _ := u.User.Password()
	for _, encrypted := range []bool{false, true} {
		t.Run(fmt.Sprintf("encrypted %v", encrypted), func(t *testing.T) {
			dir := t.TempDir()
			s3 := fmt.Sprintf("storage: {files: {kind: s3, s3: {endpoint: '%s://%s', bucket: '%s', prefix: '%s/', access_key: '%s', secret_key: '%s', path_style: true}}, ",
				u.Scheme, u.Host, strings.Trim(u.Path, "/"), blob.NewKey(), u.User.Username(), password)
			cfg := s3 + strings.TrimPrefix(keys(t, encrypted), "storage: {")
			if !encrypted {
				cfg = strings.TrimSuffix(s3, ", ") + "}\n"
			}
			h := plugintest.Start(t, plugintest.Options{Plugins: house(), Config: cfg + "data: " + dir + "\n" + quickSweep})
			romeo := login(t, h, "romeo", dir)
			content := photo(t, 900, 600)
			content = append(content, make([]byte, 300_000)...) // beyond a chunk or two
			s := romeo.send("a.jpg", "image/jpeg", content)
			if got := romeo.fetch(s.get); !bytes.Equal(got, content) {
				t.Errorf("%d bytes", len(got))
			}
			resp, part := romeo.do(http.MethodGet, s.get, nil, "Range", "bytes=200000-200009")
			if resp.StatusCode != http.StatusPartialContent || !bytes.Equal(part, content[200_000:200_010]) {
				t.Errorf("%s %q", resp.Status, part)
			}
			for range 2 {
				if _, _, err := image.DecodeConfig(bytes.NewReader(romeo.fetch(s.get + "?thumbnail"))); err != nil {
					t.Error(err)
				}
			}
			romeo.status(http.StatusBadRequest, http.MethodPut, romeo.must("b.bin", 10, "").put, []byte("short"))
			romeo.status(http.StatusNoContent, http.MethodDelete, s.put, nil)
			romeo.status(http.StatusNotFound, http.MethodGet, s.get, nil)
			if err := upload.Sweep(t.Context(), h.Host()); err != nil {
				t.Error(err)
			}
		})
	}
}
