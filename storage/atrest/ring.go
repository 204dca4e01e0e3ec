package atrest

import (
	"bufio"
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
)

// Bounds of a keys file.
const (
	maxFile = 64 << 10 // bytes
	maxKeys = 200
)

// Ring is the keys of a file: immutable, and shown by no verb of fmt or slog.
type Ring struct{ keys []*key }

// key is one of them. From the secret in the file come the one for rows, and what
// tells whether two keys are the same one.
type key struct {
	id    int64
	rows  *xaes
	check []byte
}

func newKey(id int64, secret []byte) *key {
	return &key{id: id, rows: newXAES(derive(secret, "parley rows")), check: derive(secret, "parley check")}
}

// derive is HKDF-SHA256 (RFC 5869).
func derive(secret []byte, what string) []byte {
	out, err := hkdf.Key(sha256.New, secret, nil, what, keySize)
	if err != nil { // a length that cannot be
		panic(err)
	}
	return out
}

// Load reads a keys file. Nobody but its owner may write to it, and nobody but
// owner and group may read it.
func Load(path string) (*Ring, error) {
	raw, err := readKeys(path)
	if err != nil {
		return nil, err
	}
	r, _, err := parse(path, raw)
	return r, err
}

func readKeys(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("encryption keys: %w", err)
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("encryption keys: %w", err)
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("encryption keys: %s is not a file", path)
	case st.Mode().Perm()&0o027 != 0:
		return nil, fmt.Errorf("encryption keys: %s can be read or changed by others (%s): chmod 600 %s", path, st.Mode().Perm(), path)
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("encryption keys: %w", err)
	}
	if len(raw) > maxFile {
		return nil, fmt.Errorf("encryption keys: %s is larger than %d bytes", path, maxFile)
	}
	return raw, nil
}

// parse reads lines "ID BASE64"; empty ones and those that begin with # are
// comments. lines are the numbers of the keys' lines, from 0. No error shows
// what is in a line.
func parse(name string, raw []byte) (r *Ring, lines []int, err error) {
	r = &Ring{}
	wrong := func(line int, text string, args ...any) (*Ring, []int, error) {
		return nil, nil, fmt.Errorf("encryption keys: %s:%d: %s", name, line+1, fmt.Sprintf(text, args...))
	}
	s := bufio.NewScanner(bytes.NewReader(raw))
	s.Buffer(nil, maxFile+1)
	for n := 0; s.Scan(); n++ {
		line := strings.TrimSpace(s.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		fields := strings.Fields(line)
		if len(fields) != 2 {
			return wrong(n, "a line is the key's id, a space, and 32 bytes in base64")
		}
		id, err := strconv.ParseUint(fields[0], 10, 63)
		if err != nil || id == 0 || fields[0][0] == '0' {
			return wrong(n, "a key's id is a number from 1 to %d", int64(1<<63-1))
		}
		secret, err := base64.StdEncoding.Strict().DecodeString(fields[1])
		switch {
		case err != nil:
			return wrong(n, "key %d is not in base64", id)
		case len(secret) != keySize:
			return wrong(n, "key %d has %d bytes, not %d", id, len(secret), keySize)
		case len(r.keys) == maxKeys:
			return wrong(n, "more than %d keys", maxKeys)
		}
		k := newKey(int64(id), secret) //nolint:gosec // 63 bits
		for i, o := range r.keys {
			if o.id == k.id {
				return wrong(n, "key %d stands in line %d already", id, lines[i]+1)
			}
			if o.same(k) {
				return wrong(n, "key %d is the same as key %d", id, o.id)
			}
		}
		r.keys, lines = append(r.keys, k), append(lines, n)
	}
	if err := s.Err(); err != nil {
		return nil, nil, fmt.Errorf("encryption keys: %s: %w", name, err)
	}
	if len(r.keys) == 0 {
		return nil, nil, fmt.Errorf("encryption keys: %s: %w: `parley keys new` makes one", name, errNoKeys)
	}
	return r, lines, nil
}

var errNoKeys = errors.New("there is no key in it")

func (k *key) same(o *key) bool { return subtle.ConstantTimeCompare(k.check, o.check) == 1 }

func (r *Ring) find(id int64) *key {
	for _, k := range r.keys {
		if k.id == id {
			return k
		}
	}
	return nil
}

// IDs are the keys' ids in the order of the file: the first one encrypts.
func (r *Ring) IDs() []int64 {
	if r == nil {
		return nil
	}
	out := make([]int64, len(r.keys))
	for i, k := range r.keys {
		out[i] = k.id
	}
	return out
}

// String shows the ids alone.
func (r *Ring) String() string { return fmt.Sprintf("keys %v", r.IDs()) }

// Format answers every verb of fmt with String.
func (r *Ring) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(r.String())) }

// LogValue implements slog.LogValuer.
func (r *Ring) LogValue() slog.Value { return slog.StringValue(r.String()) }

// Format keeps the secrets of a key out of every verb of fmt.
func (k *key) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "key %d", k.id) }

// LogValue implements slog.LogValuer.
func (k *key) LogValue() slog.Value { return slog.StringValue(fmt.Sprint(k)) }
