package pushsender

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"strconv"
	"testing"
)

type keyForm struct {
	text string
	good bool
}

// keyForms are ways to write the test's key, and what is none.
func keyForms(t *testing.T) map[string]keyForm {
	t.Helper()
	k, err := curveKey(testPrivate)
	if err != nil {
		t.Fatal(err)
	}
	p8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := x509.MarshalPKCS8PrivateKey(other)
	if err != nil {
		t.Fatal(err)
	}
	write := func(typ string, b []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: b}))
	}
	_, r := rsaPair(t)
	return map[string]keyForm{
		"base64url": {testPrivate, true}, "padded": {testPrivate + "=", true},
		"PKCS #8": {write("PRIVATE KEY", p8), true}, "SEC 1": {write("EC PRIVATE KEY", sec1), true},
		"openssl ecparam": {write("EC PARAMETERS", []byte{6, 0}) + write("EC PRIVATE KEY", sec1), true},
		"another curve":   {write("PRIVATE KEY", p384), false}, "RSA": {r, false}, "public": {testPublic, false}, "nothing": {"", false},
	}
}

func rsaPair(t *testing.T) (public *rsa.PublicKey, private string) {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return &k.PublicKey, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func jsonNumber(n int64) string { return strconv.FormatInt(n, 10) }
