package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"parley/stream"
)

// certificateSoon is how long before its end a certificate is worth a warning.
const certificateSoon = 14 * 24 * time.Hour

// private reports whether no public authority or DNS knows the name
// (RFC 6761, RFC 6762, RFC 8375, RFC 9476).
func private(domain string) bool {
	if net.ParseIP(strings.Trim(domain, "[]")) != nil || !strings.Contains(domain, ".") {
		return true
	}
	return slices.ContainsFunc([]string{".localhost", ".local", ".test", ".example", ".invalid", ".internal", ".home.arpa", ".alt"},
		func(s string) bool { return strings.HasSuffix(domain, s) })
}

// certificates looks at what the doors will present.
func (e *examination) certificates(context.Context) []result {
	t := e.streamer.TLS
	var out []result
	byFiles := map[string][]string{} // by the name in the configuration
	var names []string               // of all others
	for _, n := range slices.Concat(e.domains, t.ExtraNames) {
		if own, ok := t.Own(n); ok {
			byFiles[own] = append(byFiles[own], n)
			continue
		}
		if f, ok := e.inDirectory(n); ok {
			out = append(out, e.certificate(f.Certificate, f.Key, []string{n})...)
			continue
		}
		names = append(names, n)
	}
	for _, own := range slices.Sorted(maps.Keys(t.Domains)) {
		out = append(out, e.certificate(t.Domains[own].Certificate, t.Domains[own].Key, byFiles[own])...)
	}
	if len(names) == 0 {
		return out
	}
	return append(out, e.others(names)...)
}

// inDirectory is what the server finds for a name by the domain that it is, or is below;
// of several files the first that can be used, else the first.
func (e *examination) inDirectory(name string) (f stream.CertificateFiles, ok bool) {
	nearest := ""
	for _, d := range e.domains {
		if (name == d || strings.HasSuffix(name, "."+d)) && len(d) > len(nearest) {
			nearest = d
		}
	}
	if nearest == "" {
		return f, false
	}
	for found := range e.streamer.TLS.Found(nearest) {
		if _, err := tls.LoadX509KeyPair(found.Certificate, found.Key); err == nil {
			return found, true
		}
		if !ok {
			f, ok = found, true
		}
	}
	return f, ok
}

// others looks at the certificate of names that have none of their own.
func (e *examination) others(names []string) []result {
	t := e.streamer.TLS
	switch {
	case t.ACME.Enabled:
		return e.acme(names)
	case t.Certificate != "" || t.Key != "":
		return e.certificate(t.Certificate, t.Key, names)
	}
	const fix = "get one from an authority: servers.streamer.tls.acme {enabled: true, email: YOU}"
	if slices.ContainsFunc(names, func(n string) bool { return !private(n) }) {
		return []result{warn("certificate", fix, "is self-signed: clients will warn, and some will refuse")}
	}
	return []result{ok("certificate", "is self-signed, as it has to be for %s; accept it in the client", strings.Join(names, ", "))}
}

// acme looks at what was fetched so far.
func (e *examination) acme(names []string) []result {
	const area = "certificate"
	var out []result
	for _, n := range names {
		if private(n) {
			out = append(out, fault(area, "use a domain that the DNS knows, or a certificate of your own", "no authority gives a certificate for %s", n))
			continue
		}
		found, err := filepath.Glob(filepath.Join(e.settings.Data, "acme", "certificates", "*", n, n+".crt"))
		if err != nil || len(found) == 0 {
			out = append(out, ok(area, "of %s is fetched by the server; port 80 of this machine has to be reachable under that name", n))
			continue
		}
		for _, f := range found {
			out = append(out, e.certificate(f, strings.TrimSuffix(f, ".crt")+".key", []string{n})...)
		}
	}
	return out
}

func (e *examination) certificate(cert, key string, names []string) []result {
	const area = "certificate"
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return []result{fault(area, "see that certificate and key in servers.streamer.tls name a PEM chain and its key, readable by the server's user", "%v", err)}
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return []result{fault(area, "renew it", "%s: %v", cert, err)}
	}
	out := []result{e.expiry(cert, leaf)}
	for _, n := range names {
		if err := leaf.VerifyHostname(n); err != nil {
			out = append(out, fault(area, "get a certificate that has "+n+" among its names", "%s is not for %s (%s)", cert, n, strings.Join(leaf.DNSNames, ", ")))
		}
	}
	if st, err := os.Stat(key); err == nil && st.Mode().Perm()&0o007 != 0 {
		out = append(out, warn(area, "chmod 640 "+key, "every user of this machine can read the key %s", key))
	}
	return append(out, e.trust(cert, leaf, pair.Certificate[1:])...)
}

func (e *examination) expiry(cert string, leaf *x509.Certificate) result {
	const area = "certificate"
	until := leaf.NotAfter.Format(time.DateOnly)
	switch left := leaf.NotAfter.Sub(e.now); {
	case left < 0:
		return fault(area, "renew it; the server takes the new file by itself", "%s ended on %s", cert, until)
	case e.now.Before(leaf.NotBefore):
		return fault(area, "look at the clock", "%s begins only on %s", cert, leaf.NotBefore.Format(time.DateOnly))
	case left < certificateSoon:
		return warn(area, "renew it; the server takes the new file by itself", "%s ends on %s", cert, until)
	}
	return ok(area, "%s is good until %s", cert, until)
}

// trust verifies the chain with the authorities that this machine knows.
func (e *examination) trust(cert string, leaf *x509.Certificate, chain [][]byte) []result {
	between := x509.NewCertPool()
	for _, raw := range chain {
		if c, err := x509.ParseCertificate(raw); err == nil {
			between.AddCert(c)
		}
	}
	_, err := leaf.Verify(x509.VerifyOptions{Intermediates: between, CurrentTime: e.now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	var unknown x509.UnknownAuthorityError
	if errors.As(err, &unknown) {
		return []result{warn("certificate", "put the authority's intermediate certificates behind the certificate in the same file", "%s: this machine does not know who signed it", cert)}
	}
	return nil
}

// cluster looks at the way to other nodes.
func (e *examination) cluster(ctx context.Context) []result {
	const area = "cluster"
	n := e.settings.Cluster.NATS
	if !e.settings.Clustered() {
		return nil
	}
	if err := n.Files(); err != nil {
		return []result{fault(area, "see that the key names a file that the server's user can read", "%v", err)}
	}
	if at := n.Embedded.Listen; at != "" {
		return []result{e.port(ctx, door{"nats", at, "other nodes"})}
	}
	var out []result
	for _, u := range n.Servers() {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", u)
		if err != nil {
			out = append(out, warn(area, "see that the NATS server runs and is reached from here, and that cluster.nats.urls is right", "no NATS server answers: %v", err))
			continue
		}
		_ = c.Close()
		out = append(out, ok(area, "something listens at %s; whether it is a NATS server that takes this node shows when that starts", u))
	}
	return out
}

// service is one SRV record that clients look for.
type service struct {
	name, door, address, rfc string
}

// records looks at what the DNS says of each domain.
func (e *examination) records(ctx context.Context) []result {
	var out []result
	for _, d := range e.domains {
		if private(d) {
			out = append(out, ok("dns", "%s needs no records: clients here reach it by address", d))
			continue
		}
		out = append(out, e.host(ctx, d))
		for _, s := range services(e.streamer.C2S, e.streamer.C2STLS) {
			out = append(out, e.srv(ctx, d, s))
		}
	}
	return append(out, e.servers(ctx)...)
}

func services(c2s, direct string) []service {
	var out []service
	for _, s := range []service{
		{"xmpp-client", "STARTTLS", c2s, "RFC 6120 §3.2.1"},
		{"xmpps-client", "direct TLS", direct, "XEP-0368 §3"},
	} {
		if s.address != "" {
			out = append(out, s)
		}
	}
	return out
}

// addressRecords are the lines for a zone file.
func addressRecords(domain string) string {
	return fmt.Sprintf("%s. 3600 IN A YOUR-IPv4-ADDRESS\n%s. 3600 IN AAAA YOUR-IPv6-ADDRESS", domain, domain)
}

// srvRecord is the line for a zone file.
func srvRecord(domain string, s service) string { return srvRecordTo(domain, domain, s) }

// srvRecordTo is one for a name that is at another one's address.
func srvRecordTo(name, target string, s service) string {
	return fmt.Sprintf("_%s._tcp.%s. 3600 IN SRV 0 5 %s %s.", s.name, name, port(s.address), target)
}

func (e *examination) host(ctx context.Context, domain string) result {
	addrs, err := e.dns.LookupHost(ctx, domain)
	if err != nil {
		return warn("dns", "add, with the addresses of this machine:\n"+addressRecords(domain), "%s has no address (%s)", domain, dnsReason(err))
	}
	return ok("dns", "%s is %s", domain, strings.Join(addrs, ", "))
}

func (e *examination) srv(ctx context.Context, domain string, s service) result {
	return e.srvTo(ctx, domain, domain, s)
}

// srvTo is srv for a name that is at another one's address.
func (e *examination) srvTo(ctx context.Context, domain, target string, s service) result {
	record := srvRecordTo(domain, target, s)
	_, found, err := e.dns.LookupSRV(ctx, s.name, "tcp", domain)
	if err != nil || len(found) == 0 {
		reason := "there is none"
		if err != nil {
			reason = dnsReason(err)
		}
		return warn("dns", "add:\n"+record, "_%s._tcp.%s (%s, %s): %s", s.name, domain, s.door, s.rfc, reason)
	}
	want := port(s.address)
	for _, r := range found {
		if r.Target == "." { // RFC 2782: the service is decidedly not available
			return warn("dns", "replace it by:\n"+record, "_%s._tcp.%s says that there is no such service", s.name, domain)
		}
		if fmt.Sprint(r.Port) != want {
			return warn("dns", "unless that is a proxy, replace it by:\n"+record, "_%s._tcp.%s leads to port %d, the server listens on %s", s.name, domain, r.Port, want)
		}
		if _, err := e.dns.LookupHost(ctx, r.Target); err != nil {
			return warn("dns", "give that name an address", "_%s._tcp.%s leads to %s, which has no address (%s)", s.name, domain, r.Target, dnsReason(err))
		}
	}
	return ok("dns", "_%s._tcp.%s leads to %s port %d", s.name, domain, found[0].Target, found[0].Port)
}

// dnsReason tells a record that is not there from a DNS that does not answer.
func dnsReason(err error) string {
	if notFound(err) {
		return "there is none"
	}
	return "the DNS does not answer"
}

func notFound(err error) bool {
	var d *net.DNSError
	return errors.As(err, &d) && d.IsNotFound
}
