package wire

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"
	"sync"
)

// Keys remembers salted passwords, as clients do (RFC 5802 §3): a login costs
// the generator a few hashes, not thousands. Safe for concurrent use; nil
// remembers nothing.
type Keys struct{ m sync.Map }

// scram is the client's side of one SCRAM exchange without channel binding
// (RFC 5802 §5, RFC 7677).
type scram struct {
	hash                 func() hash.Hash
	user, password, bare string
	keys                 *Keys
	verifier             string
}

func newScram(mechanism, user, password string, keys *Keys) (*scram, error) {
	s := &scram{user: user, password: password, keys: keys}
	switch mechanism {
	case "SCRAM-SHA-1":
		s.hash = sha1.New
	case "SCRAM-SHA-256":
		s.hash = sha256.New
	default:
		return nil, fmt.Errorf("mechanism %s is not known here", mechanism)
	}
	return s, nil
}

// first is the client's first message.
func (s *scram) first() string {
	var nonce [18]byte
	_, _ = rand.Read(nonce[:])
	s.bare = "n=" + strings.NewReplacer("=", "=3D", ",", "=2C").Replace(s.user) + ",r=" + base64.StdEncoding.EncodeToString(nonce[:])
	return "n,," + s.bare
}

var errScram = errors.New("the server's SCRAM message makes no sense")

// final answers the server's first message.
func (s *scram) final(challenge string) (string, error) {
	f := map[string]string{}
	for part := range strings.SplitSeq(challenge, ",") {
		if k, v, ok := strings.Cut(part, "="); ok {
			f[k] = v
		}
	}
	salt, err := base64.StdEncoding.DecodeString(f["s"])
	n, err2 := strconv.Atoi(f["i"])
	if err != nil || err2 != nil || n < 1 || f["r"] == "" {
		return "", errScram
	}
	salted, err := s.salted(salt, n)
	if err != nil {
		return "", err
	}
	without := "c=biws,r=" + f["r"]
	message := s.bare + "," + challenge + "," + without
	client := s.mac(salted, "Client Key")
	h := s.hash()
	h.Write(client)
	proof := s.mac(h.Sum(nil), message)
	for i := range proof {
		proof[i] ^= client[i]
	}
	s.verifier = "v=" + base64.StdEncoding.EncodeToString(s.mac(s.mac(salted, "Server Key"), message))
	return without + ",p=" + base64.StdEncoding.EncodeToString(proof), nil
}

// verify checks that the server knows the key too.
func (s *scram) verify(last string) error {
	if last != s.verifier {
		return errors.New("the server does not know the password's key")
	}
	return nil
}

func (s *scram) mac(key []byte, text string) []byte {
	m := hmac.New(s.hash, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

func (s *scram) salted(salt []byte, n int) ([]byte, error) {
	size := s.hash().Size()
	name := fmt.Sprintf("%d,%d,%x,%s", size, n, salt, s.password)
	if s.keys != nil {
		if k, ok := s.keys.m.Load(name); ok {
			return k.([]byte), nil
		}
	}
	k, err := pbkdf2.Key(s.hash, s.password, salt, n, size)
	if err == nil && s.keys != nil {
		s.keys.m.Store(name, k)
	}
	return k, err
}
