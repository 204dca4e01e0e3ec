package upload

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"parley/plugins"
	"parley/storage"
	"parley/storage/blob"
	"parley/stream"
)

// Files is the contract: what the service and the door share, and where features
// that look at files take part (scan.go).
type Files struct {
	env   plugins.Env
	ids   *storage.IDs
	store *store
	slots []byte                           // the key of proof
	doors atomic.Pointer[stream.Registrar] // where files are put and fetched; nil: not in this process
	*scanners

	mu     sync.Mutex
	hashes []byte // the key of hash; nil: not read yet
}

// startLimit bounds what is read at start.
const startLimit = 30 * time.Second

func newFiles(env plugins.Env) (*Files, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	f := &Files{env: env, store: &store{env}, scanners: &scanners{}}
	var err error
	if f.slots, err = storage.Secret(ctx, env.DB, "upload.slots", sha256.Size); err != nil {
		return nil, err
	}
	highest, err := f.store.highest(ctx)
	f.ids = storage.NewIDs(env.Clock.Now, env.Slot, highest)
	return f, err
}

// File is one that somebody has uploaded, or the slot for it.
type File struct {
	ID      int64  // in the order of time
	Owner   string // bare
	Name    string
	Size    int64
	Type    string // media type; "": nobody has said
	Purpose string

	token token
	shown bool // browsers may show it
	state state
	ends  time.Time     // when the slot or file is over; zero: never
	until time.Time     // when the file is, at the latest; zero: never
	keep  time.Duration // how long a file stays; 0: for good
	blob  int64
}

// state is how far a slot has come.
type state = int64

const (
	stateSlot state = iota
	stateClaimed
	stateStored
)

// over reports whether nobody gets it any more.
func (f *File) over(now time.Time) bool { return !f.ends.IsZero() && !now.Before(f.ends) }

// Uploaded is when the slot was given.
func (f *File) Uploaded() time.Time { return time.UnixMicro(f.ID) }

// token is the part of an address that nobody guesses.
type token [20]byte

func newToken() (t token) {
	_, _ = rand.Read(t[:]) // never fails (crypto/rand)
	return t
}

func (t token) String() string { return base64.RawURLEncoding.EncodeToString(t[:]) }

func parseToken(s string) (t token, ok bool) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(raw) != len(t) {
		return t, false
	}
	return token(raw), true
}

// hash is what the database finds it by: who reads an index of the database has no
// address yet.
func (t token) hash() []byte {
	h := sha256.Sum256(t[:])
	return h[:]
}

// root is the path that all files are below.
const root = "/upload/"

// path is the part of a file's address behind the server's name (XEP-0363 §4: the
// name and its ending stay; RFC 3986).
func (f *File) path() string { return root + f.token.String() + "/" + url.PathEscape(f.Name) }

// putKey is the parameter with the proof.
const putKey = "key"

// proof is what the address for uploading has and the other one has not: whoever
// shows it was given the slot. It may fill the slot, once, and delete the file.
func (f *Files) proof(t token) string {
	mac := hmac.New(sha256.New, f.slots)
	_, _ = mac.Write(t[:]) // never fails (hash.Hash)
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:24])
}

func (f *Files) proves(t token, key string) bool {
	return hmac.Equal([]byte(f.proof(t)), []byte(key))
}

// hash is what content is known by in the database. It is keyed: who has the
// database alone cannot look there for a file that is known elsewhere.
func (f *Files) hash(ctx context.Context, sum blob.Sum) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hashes == nil {
		key, err := f.store.hashKey(ctx)
		if err != nil {
			return nil, err
		}
		f.hashes = key
	}
	mac := hmac.New(sha256.New, f.hashes)
	_, _ = mac.Write(sum[:])
	return mac.Sum(nil), nil
}

// doorURL is where a domain's files are when nobody has configured it; "": this
// process has no HTTPS door.
func (f *Files) doorURL(domain string) string {
	door := f.doors.Load()
	if door == nil {
		return ""
	}
	_, port, err := net.SplitHostPort(door.Addresses()["https"])
	if err != nil {
		return ""
	}
	if port == "443" {
		return "https://" + domain
	}
	return "https://" + net.JoinHostPort(domain, port)
}

// Remove deletes an account's file; false: it has none of that id.
func (f *Files) Remove(ctx context.Context, owner string, id int64) (bool, error) {
	ok, err := f.store.remove(ctx, owner, id)
	if err != nil {
		return false, fmt.Errorf("delete file: %w", err)
	}
	return ok, nil
}
