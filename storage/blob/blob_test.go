package blob

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/iotest"
	"time"
)

// variable names the environment variable with the S3 server for tests, as
// http://ACCESS:SECRET@HOST:PORT/BUCKET: what .ci/tests3 start DIR prints.
const variable = "PARLEY_TEST_S3"

// s3ForTests is a place of the test's own.
func s3ForTests(t *testing.T) S3 {
	t.Helper()
	at := os.Getenv(variable)
	if at == "" {
		if os.Getenv("CI") == "true" {
			t.Fatalf("%s is not set: .ci/tests3 start DIR prints it", variable)
		}
		t.Skipf("no S3 server: set %s to what .ci/tests3 start DIR prints", variable)
	}
	u, err := url.Parse(at)
	if err != nil {
		t.Fatalf("%s: not a URL", variable)
	}
	secret, _ := u.User.Password()
	return S3{
		Endpoint: u.Host, Insecure: u.Scheme == "http", Region: "us-east-1", Bucket: strings.Trim(u.Path, "/"), PathStyle: true,
		AccessKey: u.User.Username(), SecretKey: secret, Prefix: NewKey().String() + "/",
	}
}

// each runs f on each kind of Store.
func each(t *testing.T, f func(t *testing.T, s Store)) {
	t.Run("disk", func(t *testing.T) { f(t, newDisk(filepath.Join(t.TempDir(), "files"), 0)) })
	t.Run("s3", func(t *testing.T) {
		b, err := newBucket(s3ForTests(t))
		if err != nil {
			t.Fatal(err)
		}
		f(t, b)
	})
}

func put(t *testing.T, s Store, content []byte) Key {
	t.Helper()
	k := NewKey()
	sum, err := s.Put(t.Context(), k, bytes.NewReader(content), int64(len(content)))
	if err != nil {
		t.Fatal(err)
	}
	if sum != sha256.Sum256(content) {
		t.Errorf("%d bytes: another sum", len(content))
	}
	return k
}

func read(t *testing.T, s Store, k Key, offset int64) []byte {
	t.Helper()
	r, err := s.Get(t.Context(), k, offset)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestStore(t *testing.T) {
	each(t, func(t *testing.T, s Store) {
		for _, n := range []int{0, 1, 70_000, 3 << 20} {
			content := bytes.Repeat([]byte("0123456789abcdefX"), n/17+1)[:n]
			k := put(t, s, content)
			for _, at := range []int64{0, 1, 69_999, int64(n) - 1, int64(n)} {
				if at < 0 || at > int64(n) {
					continue
				}
				if got := read(t, s, k, at); !bytes.Equal(got, content[at:]) {
					t.Errorf("%d bytes from %d: %d", n, at, len(got))
				}
			}
			if st, err := s.Stat(t.Context(), k); err != nil || st.Size != int64(n) || time.Since(st.Modified) > time.Hour {
				t.Errorf("%d bytes: %+v, %v", n, st, err)
			}
			for range 2 { // what is gone is gone
				if err := s.Delete(t.Context(), k); err != nil {
					t.Error(err)
				}
			}
			if _, err := s.Get(t.Context(), k, 0); !errors.Is(err, ErrNotFound) {
				t.Errorf("get what was deleted: %v", err)
			}
			if _, err := s.Stat(t.Context(), k); !errors.Is(err, ErrNotFound) {
				t.Errorf("stat what was deleted: %v", err)
			}
		}
	})
}

// A file is there whole or not at all, and an error of the sender's is not taken for
// one of the store.
func TestHalfAFileIsNone(t *testing.T) {
	each(t, func(t *testing.T, s Store) {
		gone := errors.New("the sender is gone")
		for name, c := range map[string]struct {
			r    io.Reader
			size int64
			want error
		}{
			"short":       {strings.NewReader("1234"), 5, ErrSize},
			"long":        {strings.NewReader("123456"), 5, ErrSize},
			"not empty":   {strings.NewReader("1"), 0, ErrSize},
			"breaks off":  {io.MultiReader(strings.NewReader("12"), iotest.ErrReader(gone)), 5, gone},
			"large, long": {io.LimitReader(iotest.OneByteReader(zeros{}), 200_001), 200_000, ErrSize},
		} {
			k := NewKey()
			if _, err := s.Put(t.Context(), k, c.r, c.size); !errors.Is(err, c.want) || errors.Is(err, ErrUnavailable) {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := s.Stat(t.Context(), k); !errors.Is(err, ErrNotFound) {
				t.Errorf("%s: something is there: %v", name, err)
			}
		}
		if all, err := s.List(t.Context(), Key{}, 10); err != nil || len(all) > 0 {
			t.Errorf("%v, %v", all, err)
		}
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestList(t *testing.T) {
	each(t, func(t *testing.T, s Store) {
		want := map[string]int64{}
		for i := range 25 {
			k := put(t, s, make([]byte, i+1))
			want[k.String()] = int64(i + 1)
			if i%5 == 0 {
				v := k.Variant("t")
				if _, err := s.Put(t.Context(), v, strings.NewReader("x"), 1); err != nil {
					t.Fatal(err)
				}
				want[v.String()] = 1
			}
		}
		var after Key
		for page := 0; ; page++ {
			all, err := s.List(t.Context(), after, 7)
			if err != nil {
				t.Fatal(err)
			}
			if len(all) == 0 {
				break
			}
			if len(all) > 7 || page > 10 {
				t.Fatalf("page %d has %d", page, len(all))
			}
			for _, x := range all {
				if x.Key.String() <= after.String() || want[x.Key.String()] != x.Size {
					t.Errorf("%+v after %s", x, after)
				}
				delete(want, x.Key.String())
				after = x.Key
			}
		}
		if len(want) > 0 {
			t.Errorf("not listed: %v", want)
		}
	})
}

func TestKeys(t *testing.T) {
	k := NewKey()
	if again, ok := ParseKey(k.String()); !ok || again != k || len(k.String()) != keyBytes {
		t.Errorf("%q", k)
	}
	if v := k.Variant("t"); v.Origin() != k || k.Origin() != k {
		t.Errorf("%s of %s", v, v.Origin())
	}
	if NewKey() == k {
		t.Error("drawn twice")
	}
}

// No name leads out of the directory: what could is no Key, and links in it are
// not followed (reliability row 19).
func TestReliability19NoTraversal(t *testing.T) {
	for _, s := range []string{"", "..", "../x", "ab/cd", "/etc/passwd", `ab\cd`, "abc.", "ABC", "a\x00b", "-abc", "äbc", strings.Repeat("a", maxKey+1)} {
		if k, ok := ParseKey(s); ok {
			t.Errorf("%q is a key: %v", s, k)
		}
	}
	outside, dir := t.TempDir(), t.TempDir()
	k := NewKey()
	if err := os.Symlink(outside, filepath.Join(dir, k.folder())); err != nil {
		t.Fatal(err)
	}
	s := newDisk(dir, 0)
	if _, err := s.Put(t.Context(), k, strings.NewReader("x"), 1); err == nil {
		t.Error("written through a link")
	}
	if left, _ := os.ReadDir(outside); len(left) > 0 {
		t.Errorf("outside: %v", left)
	}
	if err := os.WriteFile(filepath.Join(outside, k.String()), []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Get(t.Context(), k, 0); err == nil {
		_ = r.Close()
		t.Error("read through a link")
	}
}

// What was begun and left goes after a while; what is being written stays.
func TestTidy(t *testing.T) {
	s := newDisk(t.TempDir(), 0)
	put(t, s, []byte("x"))
	old := filepath.Join(s.path, tempFolder, "old")
	for _, name := range []string{old, filepath.Join(s.path, tempFolder, "new")} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(old, time.Time{}, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := s.Tidy(t.Context(), time.Now().Add(-time.Minute)); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(s.path, tempFolder, "*")); len(left) != 1 || filepath.Base(left[0]) != "new" {
		t.Errorf("left: %v", left)
	}
}

func TestReserve(t *testing.T) {
	s := newDisk(t.TempDir(), 1<<62)
	if err := s.Room(1); !errors.Is(err, ErrFull) {
		t.Errorf("room: %v", err)
	}
	if _, err := s.Put(t.Context(), NewKey(), strings.NewReader("x"), 1); !errors.Is(err, ErrFull) {
		t.Errorf("put: %v", err)
	}
}

// A disk that is full says so, leaves nothing half, and what is there can be read
// (reliability row 30).
func TestReliability30DiskOfFilesFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("mounting a small tmpfs needs root: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) }) // the Store has it open
	s := newDisk(dir, 0)
	k := put(t, s, []byte("before"))
	large := NewKey()
	for range 3 { // Room says so, and when others have taken it meanwhile the disk does
		if _, err := s.Put(t.Context(), large, io.LimitReader(zeros{}, 2<<20), 2<<20); !errors.Is(err, ErrFull) {
			t.Errorf("%v", err)
		}
	}
	_, err := s.Put(t.Context(), large, &greedy{dir: dir, left: 700 << 10}, 700<<10)
	if !errors.Is(err, ErrFull) {
		t.Errorf("taken meanwhile: %v", err)
	}
	if got := read(t, s, k, 0); string(got) != "before" {
		t.Errorf("%q", got)
	}
	if err := os.Remove(filepath.Join(dir, "other")); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, tempFolder, "*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	put(t, s, make([]byte, 700<<10)) // there is room again
}

// greedy is content whose reading fills the disk.
type greedy struct {
	dir  string
	left int
	full bool
}

func (g *greedy) Read(p []byte) (int, error) {
	if !g.full {
		g.full = true
		if err := os.WriteFile(filepath.Join(g.dir, "other"), make([]byte, 600<<10), 0o600); err != nil {
			return 0, err
		}
	}
	n := min(len(p), g.left)
	g.left -= n
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// Who signs with the wrong key gets nothing: the server of these tests checks that.
func TestS3ChecksSignatures(t *testing.T) {
	c := s3ForTests(t)
	right, err := newBucket(c)
	if err != nil {
		t.Fatal(err)
	}
	k := put(t, right, []byte("x"))
	c.SecretKey += "x"
	wrong, err := newBucket(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wrong.Get(t.Context(), k, 0); !errors.Is(err, ErrUnavailable) {
		t.Errorf("get: %v", err)
	}
	if _, err := wrong.Put(t.Context(), NewKey(), strings.NewReader("x"), 1); !errors.Is(err, ErrUnavailable) {
		t.Errorf("put: %v", err)
	}
}

func TestUnreachable(t *testing.T) {
	b, err := newBucket(S3{Endpoint: "127.0.0.1:1", Insecure: true, Region: "us-east-1", Bucket: "b", AccessKey: "a", SecretKey: "s", PathStyle: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond) // the library tries again and again
	defer cancel()
	if _, err := b.Stat(ctx, NewKey()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("%v", err)
	}
}

func TestConfig(t *testing.T) {
	for name, c := range map[string]Config{"no path": {Kind: "disk"}, "unknown": {Kind: "tape"}, "no server": {Kind: "s3"}} {
		if s, err := Open(c); err == nil {
			t.Errorf("%s: %s", name, fmt.Sprint(s))
		}
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add("abc")
	f.Add("../x")
	f.Fuzz(func(t *testing.T, s string) {
		k, ok := ParseKey(s)
		if ok && (k.String() != s || strings.ContainsAny(s, "/\\.\x00") || !filepath.IsLocal(k.path())) {
			t.Errorf("%q", s)
		}
	})
}
