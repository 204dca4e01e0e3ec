// Package blob keeps files: on a disk, or in a bucket that speaks S3.
//
// A Store knows nothing of whose files they are: what it keeps is found by a Key
// that was drawn at random, so that no name from outside ever becomes a path.
// Whoever uses it has rows that say what a file is; those are the truth, and what
// no row names is swept away (plugins/upload).
//
//	disk.go  a directory: temporary file, fsync, rename
//	s3.go    a bucket, by minio-go
package blob

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Errors that a caller can act on; what is returned wraps them.
var (
	// ErrNotFound: there is no such file.
	ErrNotFound = errors.New("no such file")
	// ErrFull: there is no room left. Reading goes on; writing does when somebody
	// has made room.
	ErrFull = errors.New("no room for files")
	// ErrUnavailable: the store does not answer now.
	ErrUnavailable = errors.New("files are unavailable")
	// ErrSize: the content is shorter or longer than was said.
	ErrSize = errors.New("content is not as long as was said")
)

// Key is what a file is found by: lower-case letters, digits and hyphens, so that
// it is a name on every file system and in every bucket. The zero Key is none.
type Key struct{ s string }

// keyBytes is the length of a new Key: base32 of 130 random bits.
const keyBytes = 26

// maxKey bounds what ParseKey takes.
const maxKey = 64

// NewKey draws one that nobody guesses.
func NewKey() Key { return Key{strings.ToLower(rand.Text()[:keyBytes])} }

// ParseKey reads what String gave; false for everything that could not be one.
func ParseKey(s string) (Key, bool) {
	if len(s) < 3 || len(s) > maxKey || s[0] == '-' {
		return Key{}, false
	}
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return Key{}, false
		}
	}
	return Key{s}, true
}

// String is what to keep of a Key.
func (k Key) String() string { return k.s }

// IsZero reports whether it is none.
func (k Key) IsZero() bool { return k.s == "" }

// Variant is the Key of a file that was made of k's: name is a word of lower-case
// letters.
func (k Key) Variant(name string) Key { return Key{k.s + "-" + name} }

// Origin is the Key that a Variant was made of, or k itself.
func (k Key) Origin() Key {
	s, _, _ := strings.Cut(k.s, "-")
	return Key{s}
}

// Info is what a Store knows of a file.
type Info struct {
	Key      Key
	Size     int64
	Modified time.Time
}

// Sum is a SHA-256.
type Sum [32]byte

// Store keeps files. All methods may be called from many goroutines; errors wrap
// those of this package.
type Store interface {
	// Put keeps exactly size bytes of r under a new key and returns their sum.
	// After an error nothing is kept; ErrSize says that r had fewer or more, and
	// what r fails with comes back wrapped. When it returns nil the file lasts.
	Put(ctx context.Context, k Key, r io.Reader, size int64) (Sum, error)
	// Get reads from the offset on; what is behind it, to the end.
	Get(ctx context.Context, k Key, offset int64) (io.ReadCloser, error)
	// Stat tells of a file.
	Stat(ctx context.Context, k Key) (Info, error)
	// Delete removes a file; one that is not there is removed already.
	Delete(ctx context.Context, k Key) error
	// List returns the files after a key, in the order of their keys, at most
	// limit.
	List(ctx context.Context, after Key, limit int) ([]Info, error)
}

// Roomy is a Store that knows how much room there is.
type Roomy interface {
	// Room returns ErrFull when so many bytes would not fit.
	Room(size int64) error
}

// Tidier is a Store that may have begun what was never finished.
type Tidier interface {
	// Tidy removes what was begun before and left.
	Tidy(ctx context.Context, before time.Time) error
}

// Config chooses a Store.
type Config struct {
	Kind    string // disk, s3
	Path    string // disk: the directory
	Reserve int64  // disk: bytes that stay free on its file system
	S3      S3
}

// S3 says where a bucket is.
type S3 struct {
	Endpoint  string // host or host:port
	Insecure  bool   // without TLS
	Region    string
	Bucket    string
	Prefix    string // of every key in it; "" or ends with a slash
	AccessKey string
	SecretKey string
	PathStyle bool // the bucket is in the path, not in the host's name
}

// Open returns the Store. Nothing is written or asked for before it is used.
func Open(c Config) (Store, error) {
	switch c.Kind {
	case "", "disk":
		if c.Path == "" {
			return nil, errors.New("files: path is missing")
		}
		return newDisk(c.Path, c.Reserve), nil
	case "s3":
		return newBucket(c.S3)
	}
	return nil, fmt.Errorf("files: unknown kind %q (disk or s3)", c.Kind)
}
