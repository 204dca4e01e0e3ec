package pushsender_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	patience = 90 * time.Second
	vapidKey = "yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw" // RFC 8291 §5
	vapidPub = "BP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A8"
)

// notice is what a device has got.
type notice struct {
	header  http.Header
	content struct {
		Node         string
		Count, Calls int
		Body, Sender string
	}
}

// receiver is a device with its Web Push service: it checks who sends (RFC 8292) and
// decrypts (RFC 8291), by its own code.
type receiver struct {
	t    *testing.T
	url  string
	ca   string
	key  *ecdh.PrivateKey
	auth []byte
	got  chan notice

	mu     sync.Mutex
	answer func(http.ResponseWriter) // nil: 201
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{t: t, key: key, auth: []byte("0123456789abcdef"), got: make(chan notice, 100)}
	s := httptest.NewTLSServer(r)
	t.Cleanup(s.Close)
	r.url = s.URL
	r.ca = filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(r.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return r
}

// answers lets it answer otherwise; nil: as usual.
func (r *receiver) answers(f func(http.ResponseWriter)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = f
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	n := notice{header: q.Header}
	body, err := io.ReadAll(q.Body)
	if err == nil {
		err = r.signed(q.Header.Get("Authorization"))
	}
	if err == nil && q.Header.Get("Content-Encoding") != "aes128gcm" {
		err = fmt.Errorf("the encoding is %s", q.Header.Get("Content-Encoding"))
	}
	if err == nil {
		if body, err = r.decrypt(body); err == nil {
			err = json.Unmarshal(body, &n.content)
		}
	}
	if err != nil {
		r.t.Errorf("the notice: %v", err)
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	r.mu.Lock()
	answer := r.answer
	r.mu.Unlock()
	r.got <- n
	if answer != nil {
		answer(w)
		return
	}
	w.WriteHeader(http.StatusCreated)
}

// signed checks the identity (RFC 8292 §2, §3).
func (r *receiver) signed(header string) error {
	token, key, ok := strings.Cut(strings.TrimPrefix(header, "vapid t="), ", k=")
	parts := strings.Split(token, ".")
	if !ok || key != vapidPub || len(parts) != 3 {
		return fmt.Errorf("authorization is %q", header)
	}
	raw, err := base64.RawURLEncoding.DecodeString(key)
	if err != nil {
		return err
	}
	public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), raw)
	if err != nil {
		return err
	}
	sig, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || len(sig) != 64 {
		return fmt.Errorf("signature: %d bytes, %w", len(sig), err)
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if !ecdsa.Verify(public, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
		return errors.New("the signature is wrong")
	}
	var claims struct {
		Aud, Sub string
		Exp      int64
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return err
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return err
	}
	if left := time.Until(time.Unix(claims.Exp, 0)); claims.Aud != r.url || claims.Sub != "mailto:admin@example.org" || left <= 0 || left > 24*time.Hour {
		return fmt.Errorf("claims are %+v", claims)
	}
	return nil
}

// decrypt is RFC 8291 §3.4 and RFC 8188 §2.
func (r *receiver) decrypt(b []byte) ([]byte, error) {
	if len(b) < 21+65 || b[20] != 65 {
		return nil, errors.New("the header is too short")
	}
	salt, size, sender, text := b[:16], binary.BigEndian.Uint32(b[16:20]), b[21:86], b[86:]
	if len(text) > int(size) {
		return nil, errors.New("it has more than one record")
	}
	public, err := ecdh.P256().NewPublicKey(sender)
	if err != nil {
		return nil, err
	}
	shared, err := r.key.ECDH(public)
	if err != nil {
		return nil, err
	}
	info := "WebPush: info\x00" + string(r.key.PublicKey().Bytes()) + string(sender)
	ikm, err := hkdf.Key(sha256.New, shared, r.auth, info, 32)
	if err != nil {
		return nil, err
	}
	key, err := hkdf.Key(sha256.New, ikm, salt, "Content-Encoding: aes128gcm\x00", 16)
	if err != nil {
		return nil, err
	}
	nonce, err := hkdf.Key(sha256.New, ikm, salt, "Content-Encoding: nonce\x00", 12)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	plain, err := gcm.Open(nil, nonce, text, nil)
	if err != nil {
		return nil, err
	}
	plain = bytes.TrimRight(plain, "\x00")
	if !bytes.HasSuffix(plain, []byte{2}) {
		return nil, errors.New("it is not the last record")
	}
	return plain[:len(plain)-1], nil
}

// next is the next notice.
func (r *receiver) next() notice {
	r.t.Helper()
	select {
	case n := <-r.got:
		return n
	case <-time.After(patience):
		r.t.Fatal("no notice comes")
		return notice{}
	}
}

// config is a house's that may talk to the receiver; more are further keys of the
// sender.
func (r *receiver) config(more string) string {
	return `servers: {processor: {components: {push: {every: 0s}, pushsender: {private_addresses: true, ca_file: ` + r.ca +
		`, webpush: {vapid_key: ` + vapidKey + `, contact: 'mailto:admin@example.org'}` + more + `}}}}`
}
