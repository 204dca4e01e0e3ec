package sasl

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"fmt"
)

// BindingType is a channel binding's unique prefix in IANA's registry.
type BindingType string

const (
	TLSExporter       BindingType = "tls-exporter"         // RFC 9266
	TLSServerEndPoint BindingType = "tls-server-end-point" // RFC 5929 §4
)

// Binding is the channel below a stream.
type Binding struct {
	Exporter []byte // tls-exporter's data: 32 bytes, nil when the handshake gives none
	EndPoint []byte // tls-server-end-point's data, nil when undefined for the certificate
	TLS      bool   // the connection is encrypted (with bindings, or behind a proxy without)
}

// NewBinding collects the bindings of a finished handshake. leaf is the certificate this server presented in it.
// A type that is undefined for the connection is left out.
func NewBinding(cs *tls.ConnectionState, leaf *x509.Certificate) Binding {
	b := Binding{TLS: true}
	if exporter, err := Exporter(cs); err == nil {
		b.Exporter = exporter
	}
	if leaf != nil {
		b.EndPoint = EndPoint(leaf)
	}
	return b
}

// Exporter computes tls-exporter's data (RFC 9266 §2). The error says that the connection has no unique master
// secret: TLS 1.2 without the extended one. The context is empty, not absent: in TLS 1.2 that is not the same
// (RFC 5705 §4).
func Exporter(cs *tls.ConnectionState) ([]byte, error) {
	b, err := cs.ExportKeyingMaterial("EXPORTER-Channel-Binding", []byte{}, 32)
	if err != nil {
		return nil, fmt.Errorf("sasl: tls-exporter: %w", err)
	}
	return b, nil
}

// EndPoint computes tls-server-end-point's data (RFC 5929 §4.1): the certificate's hash, by the hash function of its
// signature, SHA-256 where that is MD5 or SHA-1. Nil for signatures without a single hash function (Ed25519).
func EndPoint(leaf *x509.Certificate) []byte {
	switch leaf.SignatureAlgorithm {
	case x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1,
		x509.SHA256WithRSA, x509.SHA256WithRSAPSS, x509.DSAWithSHA256, x509.ECDSAWithSHA256:
		sum := sha256.Sum256(leaf.Raw)
		return sum[:]
	case x509.SHA384WithRSA, x509.SHA384WithRSAPSS, x509.ECDSAWithSHA384:
		sum := sha512.Sum384(leaf.Raw)
		return sum[:]
	case x509.SHA512WithRSA, x509.SHA512WithRSAPSS, x509.ECDSAWithSHA512:
		sum := sha512.Sum512(leaf.Raw)
		return sum[:]
	}
	return nil
}

// Data is the data of a type, nil when the channel has none.
func (b Binding) Data(t BindingType) []byte {
	switch {
	case t == TLSExporter && len(b.Exporter) > 0:
		return b.Exporter
	case t == TLSServerEndPoint && len(b.EndPoint) > 0:
		return b.EndPoint
	}
	return nil
}

// Types lists what the channel has, strongest first.
func (b Binding) Types() []BindingType {
	var types []BindingType
	for _, t := range [...]BindingType{TLSExporter, TLSServerEndPoint} {
		if b.Data(t) != nil {
			types = append(types, t)
		}
	}
	return types
}
