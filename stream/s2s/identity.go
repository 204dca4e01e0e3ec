package s2s

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"
	"time"

	"parley/parser/jid"
)

// Names of other kinds than DNS names in subjectAltName.
var (
	oidAltName  = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidXMPPAddr = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 8, 5} // RFC 6120 §13.7.1.4
	oidDNSSRV   = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 8, 7} // RFC 4985
)

// srvPrefix is the service of SRV-IDs for servers (RFC 6120 §13.7.1.2.1).
const srvPrefix = "_xmpp-server."

var errNoCertificate = errors.New("the server shows no certificate")

// proves returns nil when the certificates that a peer has shown are valid for the
// domain (RFC 6120 §13.7.2, RFC 6125 §6).
func (s *settings) proves(shown []*x509.Certificate, domain string, now time.Time) error {
	if len(shown) == 0 {
		return errNoCertificate
	}
	o := x509.VerifyOptions{
		Roots: s.roots, Intermediates: x509.NewCertPool(), CurrentTime: now,
		// Authorities have ceased to put in what is for clients; a server is one either way.
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, c := range shown[1:] {
		o.Intermediates.AddCert(c)
	}
	if _, err := shown[0].Verify(o); err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	if !names(shown[0], domain) {
		return fmt.Errorf("certificate: it is not one of %s", domain)
	}
	return nil
}

// names reports whether the certificate is for the domain: by DNS-ID, SRV-ID or
// XmppAddr. The common name does not count (RFC 6125 §6.4.4).
func names(c *x509.Certificate, domain string) bool {
	host, err := ascii(domain)
	if err != nil {
		return false
	}
	for _, n := range c.DNSNames {
		if matchDNS(n, host) {
			return true
		}
	}
	for _, n := range otherNames(c) {
		switch {
		case n.id.Equal(oidXMPPAddr):
			if at, err := jid.Parse(n.value); err == nil && at.String() == domain {
				return true
			}
		case n.id.Equal(oidDNSSRV):
			if strings.EqualFold(n.value, srvPrefix+host) {
				return true
			}
		}
	}
	return false
}

// matchDNS is RFC 6125 §6.4: a wildcard is the whole left-most label, and stands
// for exactly one.
func matchDNS(pattern, host string) bool {
	if strings.EqualFold(pattern, host) {
		return true
	}
	suffix, wild := strings.CutPrefix(pattern, "*.")
	if !wild || !strings.Contains(suffix, ".") {
		return false
	}
	_, rest, ok := strings.Cut(host, ".")
	return ok && strings.EqualFold(suffix, rest)
}

type otherName struct {
	id    asn1.ObjectIdentifier
	value string
}

// otherNames reads the names in subjectAltName that package x509 does not know
// (RFC 5280 §4.2.1.6). What is malformed is left out.
func otherNames(c *x509.Certificate) (found []otherName) {
	for _, e := range c.Extensions {
		if !e.Id.Equal(oidAltName) {
			continue
		}
		var all asn1.RawValue
		if _, err := asn1.Unmarshal(e.Value, &all); err != nil {
			return nil
		}
		for rest := all.Bytes; len(rest) > 0; {
			var one asn1.RawValue
			var err error
			if rest, err = asn1.Unmarshal(rest, &one); err != nil {
				return found
			}
			if one.Class == asn1.ClassContextSpecific && one.Tag == 0 {
				if n, ok := parseOtherName(one.Bytes); ok {
					found = append(found, n)
				}
			}
		}
	}
	return found
}

func parseOtherName(b []byte) (n otherName, ok bool) {
	b, err := asn1.Unmarshal(b, &n.id)
	if err != nil {
		return n, false
	}
	var explicit, value asn1.RawValue
	if _, err = asn1.Unmarshal(b, &explicit); err != nil {
		return n, false
	}
	if _, err = asn1.Unmarshal(explicit.Bytes, &value); err != nil {
		return n, false
	}
	n.value = string(value.Bytes)
	return n, true
}
