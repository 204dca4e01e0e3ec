package pushsender

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"syscall"
	"time"

	"parley/stream"
)

// Bounds of what an outside service may answer.
const (
	maxHeader = 16 << 10
	maxBody   = 16 << 10
	maxIdle   = 256 // connections that wait for the next note
)

// errInside is an endpoint that nobody may let this server connect to.
var errInside = errors.New("its address is a private one (servers.processor.components.pushsender.private_addresses)")

// outside is what notes are sent with: https, no proxy, no redirects, and, unless
// inner addresses are allowed, only to public ones. They are looked at when the name
// is resolved and the connection begins, so that no name can change its mind in
// between (reliability row 20).
func outside(cfg *Config, inner bool) (*http.Client, error) {
	roots, err := trusted(cfg.Trust)
	if err != nil {
		return nil, err
	}
	d := &net.Dialer{Timeout: cfg.Timeout, KeepAlive: 30 * time.Second}
	if !inner {
		d.Control = public
	}
	return &http.Client{
		Transport: &http.Transport{
			DialContext:            d.DialContext,
			TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:      true, // APNs has nothing else
			TLSHandshakeTimeout:    cfg.Timeout,
			ResponseHeaderTimeout:  cfg.Timeout,
			MaxResponseHeaderBytes: maxHeader,
			MaxIdleConns:           maxIdle,
			MaxIdleConnsPerHost:    cfg.PerHost,
			IdleConnTimeout:        2 * time.Minute,
			DisableCompression:     true, // a small answer stays small
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// public refuses to connect to an inner address.
func public(_, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil || stream.Inside(at.Addr()) {
		return errInside
	}
	return nil
}

// trusted are the system's certificates and those of a file; nil: the system's.
func trusted(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("ca_file: there is no certificate (PEM) in %s", file)
	}
	return pool, nil
}

// read is what is looked at of an answer; it ends the answer.
func read(r *http.Response) []byte {
	defer r.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(r.Body, maxBody)) // what is missing is not understood
	return body
}

// taken reports whether a status says that all is well.
func taken(status int) bool { return status >= 200 && status < 300 }
