package atrest

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// letters is a table as a feature declares it.
var letters = Table{Name: "letters", Row: []string{"owner", "id"}, Content: "body", KeyID: "key_id"}

func secret(b byte) string {
	return base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, keySize))
}

// ring makes one whose keys are 1, 2, … as in the list, the first one encrypts.
func ring(t testing.TB, ids ...int) *Ring {
	t.Helper()
	var b strings.Builder
	for _, id := range ids {
		fmt.Fprintf(&b, "%d %s\n", id, secret(byte(id)))
	}
	r, _, err := parse("test", []byte(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func vault(t testing.TB, ids ...int) *Vault {
	v := &Vault{}
	v.Use(ring(t, ids...), true)
	return v
}

// The vectors of c2sp.org/XAES-256-GCM, for both values of the first bit of L.
func TestXAESVectors(t *testing.T) {
	nonce := []byte("ABCDEFGHIJKLMNOPQRSTUVWX")
	for _, c := range []struct {
		key      byte
		ad, want string
	}{
		{1, "", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"},
		{3, "c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"},
	} {
		x := newXAES(bytes.Repeat([]byte{c.key}, keySize))
		got := x.aead(nonce).Seal(nil, nonce[12:], []byte("XAES-256-GCM"), []byte(c.ad))
		if hex.EncodeToString(got) != c.want {
			t.Errorf("key %d: %x, want %s", c.key, got, c.want)
		}
	}
}

func TestSealAndOpen(t *testing.T) {
	v := vault(t, 2, 1)
	for _, text := range []string{"", "a", strings.Repeat("long ", 5000)} {
		stored, id := v.Seal(&letters, []byte(text), 7, 9)
		if id != 2 || len(text) > 8 && bytes.Contains(stored, []byte(text[:8])) {
			t.Errorf("key %d, %d bytes stored", id, len(stored))
		}
		again, _ := v.Seal(&letters, []byte(text), 7, 9)
		if bytes.Equal(again, stored) {
			t.Error("the same content is stored as the same bytes")
		}
		got, err := v.Open(&letters, id, stored, 7, 9)
		if err != nil || string(got) != text {
			t.Errorf("%q: %v", got, err)
		}
	}
	if stored, id := v.Seal(&letters, nil, 1, 1); stored != nil || id != 0 {
		t.Errorf("no content: %x, key %d", stored, id)
	}
}

// A row opens in its place only, with its key only, and as it was written.
func TestRowsAreBound(t *testing.T) {
	v := vault(t, 2, 1)
	stored, id := v.Seal(&letters, []byte("for juliet"), 7, 9)
	other := letters
	other.Name = "letter"
	changed := bytes.Clone(stored)
	changed[len(changed)-1] ^= 1
	for name, c := range map[string]struct {
		table  *Table
		id     int64
		stored []byte
		row    []int64
		want   error
	}{
		"another owner":   {&letters, id, stored, []int64{8, 9}, ErrDamaged},
		"another message": {&letters, id, stored, []int64{7, 10}, ErrDamaged},
		"exchanged":       {&letters, id, stored, []int64{9, 7}, ErrDamaged},
		"another table":   {&other, id, stored, []int64{7, 9}, ErrDamaged},
		"another key":     {&letters, 1, stored, []int64{7, 9}, ErrDamaged},
		"missing key":     {&letters, 3, stored, []int64{7, 9}, ErrNoKey},
		"a bit":           {&letters, id, changed, []int64{7, 9}, ErrDamaged},
		"cut":             {&letters, id, stored[:len(stored)-1], []int64{7, 9}, ErrDamaged},
		"short":           {&letters, id, stored[:10], []int64{7, 9}, ErrDamaged},
		"empty":           {&letters, id, []byte{}, []int64{7, 9}, ErrDamaged},
	} {
		if got, err := v.Open(c.table, c.id, c.stored, c.row...); !errors.Is(err, c.want) || got != nil {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestOff(t *testing.T) {
	var none *Vault
	off := &Vault{}
	off.Use(ring(t, 1), false)
	sealed, _ := vault(t, 1).Seal(&letters, []byte("x"), 1, 1)
	for name, v := range map[string]*Vault{"nil": none, "zero": {}, "off": off} {
		text := []byte("x")
		stored, id := v.Seal(&letters, text, 1, 1)
		if id != 0 || &stored[0] != &text[0] || v.On() || v.Current() != 0 {
			t.Errorf("%s: sealed with %d", name, id)
		}
		if got, err := v.Open(&letters, 0, stored, 1, 1); err != nil || string(got) != "x" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		got, err := v.Open(&letters, 1, sealed, 1, 1)
		if name == "off" != (err == nil && string(got) == "x") {
			t.Errorf("%s: what was sealed before: %q, %v", name, got, err)
		}
	}
	if n := testing.AllocsPerRun(100, func() {
		none.Seal(&letters, sealed, 1, 1)
		_, _ = none.Open(&letters, 0, sealed, 1, 1)
	}); n != 0 {
		t.Errorf("off costs %v allocations", n)
	}
}

func TestKeysFile(t *testing.T) {
	for name, c := range map[string]struct{ file, want string }{
		"good":       {"# a comment\n\n  2 " + secret(2) + "  \r\n1 " + secret(1), ""},
		"empty":      {"", "no key in it"},
		"comments":   {"# nothing\n", "no key in it"},
		"no id":      {"1 " + secret(1) + "\n" + secret(2), "keys:2: a line is"},
		"three":      {"1 " + secret(1) + " old", "keys:1: a line is"},
		"zero":       {"0 " + secret(1), "keys:1: a key's id"},
		"negative":   {"-1 " + secret(1), "keys:1: a key's id"},
		"leading":    {"01 " + secret(1), "keys:1: a key's id"},
		"large":      {"9223372036854775808 " + secret(1), "keys:1: a key's id"},
		"not base64": {"1 " + strings.Repeat("!", 44), "keys:1: key 1 is not in base64"},
		"url base64": {"1 " + base64.URLEncoding.EncodeToString(bytes.Repeat([]byte{0xff}, 32)), "keys:1: key 1 is not in base64"},
		"short":      {"\n1 " + base64.StdEncoding.EncodeToString(make([]byte, 16)), "keys:2: key 1 has 16 bytes, not 32"},
		"twice":      {"1 " + secret(1) + "\n1 " + secret(2), "keys:2: key 1 stands in line 1 already"},
		"the same":   {"1 " + secret(1) + "\n2 " + secret(1), "keys:2: key 2 is the same as key 1"},
		"too large":  {strings.Repeat("#\n", maxFile), "larger than"},
	} {
		path := filepath.Join(t.TempDir(), "keys")
		if err := os.WriteFile(path, []byte(c.file), 0o600); err != nil {
			t.Fatal(err)
		}
		r, err := Load(path)
		switch {
		case c.want == "" && err != nil, c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", name, err, c.want)
		case c.want == "" && fmt.Sprint(r.IDs()) != "[2 1]":
			t.Errorf("%s: %v", name, r)
		case err != nil && (strings.Contains(err.Error(), secret(1)) || strings.Contains(err.Error(), "!!!")):
			t.Errorf("%s: the error shows the key: %v", name, err)
		}
	}
}

func TestKeysFileIsPrivate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	if _, err := Load(path); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("missing: %v", err)
	}
	if err := os.WriteFile(path, []byte("1 "+secret(1)), 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, good := range map[os.FileMode]bool{0o600: true, 0o400: true, 0o640: true, 0o604: false, 0o660: false, 0o644: false, 0o602: false} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); (err == nil) != good || err != nil && !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("%s: %v", mode, err)
		}
	}
	if _, err := Load(filepath.Dir(path)); err == nil {
		t.Error("a directory is a keys file")
	}
}

// What is printed of keys are their ids.
func TestSecretsAreNotShown(t *testing.T) {
	r := ring(t, 65)
	var b bytes.Buffer
	log := slog.New(slog.NewTextHandler(&b, nil))
	log.Info("x", "ring", r, "key", r.keys[0], "all", []any{r})
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		fmt.Fprintf(&b, verb+verb, r, r.keys[0])
	}
	for _, shown := range []string{secret(65), "AAAAAAAA", "41414141", "65 65", base64.StdEncoding.EncodeToString(r.keys[0].check)[:8]} {
		if strings.Contains(b.String(), shown) {
			t.Errorf("%q is in %s", shown, b.String())
		}
	}
}

func TestNewAndRemoveKey(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "keys")
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	var ids []int64
	for range 3 {
		id, err := NewKey(path, now, -1, -1)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	if fmt.Sprint(ids) != "[2026112201 2026112202 2026112203]" {
		t.Errorf("ids %v", ids)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if err := RemoveKey(path, ids[1]); err != nil {
		t.Fatal(err)
	}
	r, err := Load(path)
	if err != nil || fmt.Sprint(r.IDs()) != "[2026112203 2026112201]" {
		t.Errorf("%v, %v", r, err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	raw, _ := os.ReadFile(path)
	if !strings.HasPrefix(string(raw), "# Keys of what") || strings.Count(string(raw), "\n") != 4 {
		t.Errorf("%d lines", strings.Count(string(raw), "\n"))
	}
	if err := RemoveKey(path, 5); err == nil {
		t.Error("a key that is not there was removed")
	}
	if err := RemoveKey(path, ids[0]); err != nil {
		t.Error(err)
	}
	if err := RemoveKey(path, ids[2]); err == nil || !strings.Contains(err.Error(), "only key") {
		t.Errorf("the only key: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".parley*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func FuzzOpen(f *testing.F) {
	v := vault(f, 1)
	nonce := bytes.Repeat([]byte{7}, nonceSize) // the same in every process of the fuzzer
	good := v.load().current().rows.aead(nonce).Seal(nonce, nonce[nonceSize-gcmNonce:], []byte("hello"), letters.bind(nil, []int64{1, 2}))
	f.Add(good, int64(1), int64(2))
	f.Add(good[:30], int64(1), int64(2))
	f.Add([]byte{}, int64(0), int64(0))
	f.Fuzz(func(t *testing.T, stored []byte, owner, id int64) {
		got, err := v.Open(&letters, 1, stored, owner, id)
		if right := bytes.Equal(stored, good) && owner == 1 && id == 2; right != (err == nil) {
			t.Errorf("%q, %v", got, err)
		}
	})
}

func FuzzKeysFile(f *testing.F) {
	f.Add([]byte("1 " + secret(1) + "\n#\n2 " + secret(2)))
	f.Add([]byte("1"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, lines, err := parse("f", raw)
		if err == nil && (len(r.keys) == 0 || len(lines) != len(r.keys)) {
			t.Errorf("%v, %v", r, lines)
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	v, body := vault(b, 1), bytes.Repeat([]byte("x"), 400)
	b.ReportAllocs()
	for b.Loop() {
		v.Seal(&letters, body, 1, 2)
	}
}

func BenchmarkSealOff(b *testing.B) {
	v, body := &Vault{}, bytes.Repeat([]byte("x"), 400)
	b.ReportAllocs()
	for b.Loop() {
		v.Seal(&letters, body, 1, 2)
	}
}

func BenchmarkOpen(b *testing.B) {
	v := vault(b, 1)
	stored, id := v.Seal(&letters, bytes.Repeat([]byte("x"), 400), 1, 2)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := v.Open(&letters, id, stored, 1, 2); err != nil {
			b.Fatal(err)
		}
	}
}

// Two who make keys at the same time do not lose each other's.
func TestKeysMadeTogetherAreAllThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	const makers = 16
	var ready, done sync.WaitGroup
	ready.Add(makers)
	made := make([]int64, makers)
	for i := range makers {
		done.Go(func() {
			ready.Done()
			ready.Wait()
			var err error
			if made[i], err = NewKey(path, time.Unix(0, 0), -1, -1); err != nil {
				t.Error(err)
			}
		})
	}
	done.Wait()
	r, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range made {
		if r.find(id) == nil {
			t.Errorf("key %d is lost", id)
		}
	}
	if n := len(r.IDs()); n != makers {
		t.Errorf("%d keys of %d", n, makers)
	}
}
