package federation

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// Authority issues certificates.
type Authority struct {
	File string // PEM, its own certificate
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes one whose certificate lies in dir.
func NewAuthority(dir string) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "the test's authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	a := &Authority{filepath.Join(dir, "ca.pem"), cert, key}
	return a, os.WriteFile(a.File, block("CERTIFICATE", der), 0o600)
}

// Files are a certificate with its key, PEM.
type Files struct{ Certificate, Key, Both string }

// Leaf is what a certificate says.
type Leaf struct {
	Names   []string // DNS names
	Expired bool
	Change  func(*x509.Certificate) // may be nil
}

// Issue makes a certificate in dir.
func (a *Authority) Issue(dir string, l Leaf) (f Files, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return f, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "a server"}, DNSNames: l.Names,
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, // ejabberd wants both
	}
	if l.Expired {
		tmpl.NotAfter = time.Now().Add(-time.Hour)
	}
	if l.Change != nil {
		l.Change(tmpl)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return f, err
	}
	pk, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return f, err
	}
	f = Files{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "both.pem")}
	cert, secret := block("CERTIFICATE", der), block("PRIVATE KEY", pk)
	return f, errors.Join(
		os.WriteFile(f.Certificate, cert, 0o600), os.WriteFile(f.Key, secret, 0o600),
		os.WriteFile(f.Both, append(cert, secret...), 0o600),
	)
}

func block(typ string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der})
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return big.NewInt(time.Now().UnixNano())
	}
	return n
}
