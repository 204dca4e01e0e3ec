package sasl

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
)

// Hash is the hash function of a SCRAM family.
type Hash uint8

const (
	AnyHash Hash = iota // the strongest the account has keys for; only as a question to Credentials
	SHA1                // RFC 5802
	SHA256              // RFC 7677
)

// String is the name as it stands in mechanism names.
func (h Hash) String() string { return [...]string{"any", "SHA-1", "SHA-256"}[h] }

// Size is the length of the hash, of StoredKey and of ServerKey, in bytes.
func (h Hash) Size() int { return [...]int{0, sha1.Size, sha256.Size}[h] }

func (h Hash) new() hash.Hash {
	if h == SHA1 {
		return sha1.New()
	}
	return sha256.New()
}

// Bounds of a password and its keys.
const (
	SaltSize      = 16      // bytes of a new salt; an unknown user's is as long, so use NewSalt
	MinIterations = 4096    // RFC 5802 §5.1, RFC 7677 §3
	MaxIterations = 1 << 22 // above it stored keys are taken for damaged: PLAIN would pay for them
	MaxPassword   = 1 << 10 // bytes; reliability row 9
)

// Keys is what a server stores instead of a password (RFC 5802 §3). It is a secret all the same.
type Keys struct {
	Hash       Hash
	Salt       []byte
	Iterations int
	StoredKey  []byte
	ServerKey  []byte
}

func (k Keys) usable(want Hash) bool {
	return (want == AnyHash || k.Hash == want) && (k.Hash == SHA1 || k.Hash == SHA256) && len(k.Salt) > 0 &&
		k.Iterations > 0 && k.Iterations <= MaxIterations && len(k.StoredKey) == k.Hash.Size() && len(k.ServerKey) == k.Hash.Size()
}

// What Credentials and TokenStore say besides keys; wrap them as you like.
var (
	ErrUnknownUser = errors.New("sasl: unknown user")      // also: no keys for this hash
	ErrDisabled    = errors.New("sasl: account disabled")  // return the keys with it: only who proves the password is told
	ErrExpired     = errors.New("sasl: password expired")  // likewise
	ErrTemporary   = errors.New("sasl: temporary failure") // and so is every other error
)

// Credentials knows the keys of a domain's accounts.
type Credentials interface {
	// Keys returns the keys of the account with this prepared localpart. Errors: ErrUnknownUser; ErrDisabled and
	// ErrExpired, which come together with valid keys; anything else is temporary. AnyHash asks, in one look-up,
	// for the strongest there are.
	Keys(ctx context.Context, username string, h Hash) (Keys, error)
}

// NewSalt returns a random salt of SaltSize bytes.
func NewSalt() []byte {
	salt := make([]byte, SaltSize)
	rand.Read(salt) // never fails (crypto/rand)
	return salt
}

// Derive prepares a password and computes its keys (RFC 5802 §3). It costs iterations hashes of CPU time: run it
// in a Pool. Errors: ErrPassword; iterations or hash out of range.
func Derive(password string, salt []byte, iterations int, h Hash) (Keys, error) {
	forms, err := passwordForms(password)
	if err != nil {
		return Keys{}, err
	}
	if iterations < 1 || iterations > MaxIterations || len(salt) == 0 || h != SHA1 && h != SHA256 {
		return Keys{}, fmt.Errorf("sasl: derive: bad parameters (%d iterations, hash %d)", iterations, h)
	}
	return kdf{}.keys(forms[0], salt, iterations, h)
}

// Work is a costly step, as Config.Observe sees it.
type Work uint8

const (
	WorkPBKDF2 Work = iota
	WorkHMAC
)

// kdf does the arithmetic and tells about it, so that tests can count instead of measuring time.
type kdf struct{ observe func(Work) }

func (k kdf) did(w Work) {
	if k.observe != nil {
		k.observe(w)
	}
}

func (k kdf) hmac(h Hash, key []byte, parts ...[]byte) []byte {
	k.did(WorkHMAC)
	m := hmac.New(h.new, key)
	for _, p := range parts {
		m.Write(p)
	}
	return m.Sum(nil)
}

func (k kdf) sum(h Hash, b []byte) []byte {
	m := h.new()
	m.Write(b)
	return m.Sum(nil)
}

// keys computes RFC 5802 §3 from a prepared password.
func (k kdf) keys(password string, salt []byte, iterations int, h Hash) (Keys, error) {
	k.did(WorkPBKDF2)
	salted, err := pbkdf2.Key(h.new, password, salt, iterations, h.Size())
	if err != nil {
		return Keys{}, fmt.Errorf("sasl: pbkdf2: %w", err)
	}
	return Keys{
		Hash: h, Salt: salt, Iterations: iterations,
		StoredKey: k.sum(h, k.hmac(h, salted, []byte("Client Key"))),
		ServerKey: k.hmac(h, salted, []byte("Server Key")),
	}, nil
}

// credential is what an exchange verifies against: an account's keys, or a stand-in that nothing matches.
type credential struct {
	keys    Keys
	known   bool     // false: fail, whatever the arithmetic says
	refusal *Failure // for those who prove the password
	damage  error    // stored keys that make no sense
}

// verdict is the answer once the proof has been checked.
func (c credential) verdict(proven bool) *Failure {
	switch {
	case !proven || !c.known:
		return &Failure{Condition: NotAuthorized, Err: c.damage}
	default:
		return c.refusal
	}
}

// credential looks a user up. The stand-in is made first, for everybody: both roads cost the same.
func (s *Server) credential(ctx context.Context, username string, h Hash) (credential, *Failure) {
	stand := credential{keys: s.standIn(username, h)}
	keys, err := s.cfg.Credentials.Keys(ctx, username, h)
	c := credential{keys: keys, known: true}
	switch {
	case err == nil:
	case errors.Is(err, ErrUnknownUser):
		return stand, nil
	case errors.Is(err, ErrDisabled):
		c.refusal = fail(AccountDisabled, "")
	case errors.Is(err, ErrExpired):
		c.refusal = fail(CredentialsExpired, "")
	default:
		return credential{}, temporary(err)
	}
	if !keys.usable(h) {
		if c.refusal == nil {
			stand.damage = errors.New("sasl: the account's stored keys are damaged")
		}
		return stand, nil
	}
	return c, nil
}

// standIn is an unknown user's keys: the salt is the same at every try, and on every node (reliability row 8).
func (s *Server) standIn(username string, h Hash) Keys {
	if h == AnyHash {
		h = SHA256
	}
	salt := s.kdf.hmac(SHA256, s.cfg.Secret, []byte("salt\x00"+s.cfg.Domain+"\x00"+h.String()+"\x00"+username))
	return Keys{Hash: h, Salt: salt[:SaltSize], Iterations: s.cfg.Iterations, StoredKey: make([]byte, h.Size()), ServerKey: make([]byte, h.Size())}
}
