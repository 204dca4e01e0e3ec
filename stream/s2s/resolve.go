package s2s

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"parley/stream"
)

// Where servers listen that say nothing else (RFC 6120 §3.2.2).
const defaultPort = 5269

// Bounds of what DNS may send us to.
const (
	maxTargets   = 16 // SRV records of one domain
	maxAddresses = 8  // addresses of one host
)

// eyeballs is how long an address has before the next one is tried beside it
// (RFC 8305 §5).
const eyeballs = 250 * time.Millisecond

// Why a server is not found.
var (
	errNowhere = errors.New("DNS knows no server of that domain")
	errPrivate = errors.New("its addresses are private ones (servers.streamer.components.s2s.private_addresses)")
)

// target is where a server of a domain may be.
type target struct {
	host   string
	port   uint16
	direct bool // TLS from the first byte (XEP-0368)

	priority, weight uint16
}

// resolver finds servers.
type resolver struct {
	net     *net.Resolver
	private bool
}

func newResolver(dns string, private bool) *resolver {
	r := &net.Resolver{}
	if dns != "" {
		r.PreferGo = true
		r.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, dns)
		}
	}
	return &resolver{r, private}
}

// targets returns where the domain's servers are, in the order to try them: by SRV
// (RFC 2782, XEP-0368 §4), else the domain itself (RFC 6120 §3.2.2).
func (r *resolver) targets(ctx context.Context, domain string) ([]target, error) {
	if ip, err := netip.ParseAddr(strings.Trim(domain, "[]")); err == nil {
		return []target{{host: ip.String(), port: defaultPort}}, nil
	}
	host, err := ascii(domain)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNowhere, err)
	}
	var all []target
	var failed error
	declined := false
	for _, service := range []string{"xmpps-server", "xmpp-server"} {
		_, found, err := r.net.LookupSRV(ctx, service, "tcp", host+".")
		var dns *net.DNSError
		if err != nil && (!errors.As(err, &dns) || !dns.IsNotFound) {
			failed = err
		}
		for _, s := range found {
			if s.Target == "." { // RFC 2782: the service is decidedly not available
				declined = true
				continue
			}
			all = append(all, target{strings.TrimSuffix(s.Target, "."), s.Port, service == "xmpps-server", s.Priority, s.Weight})
		}
	}
	switch {
	case len(all) > 0:
		order(all, random)
		return all[:min(len(all), maxTargets)], nil
	case declined:
		return nil, errNowhere
	case failed != nil:
		return nil, failed
	}
	return []target{{host: host, port: defaultPort}}, nil
}

// order sorts by priority, and within one at random by weight (RFC 2782).
func order(all []target, random func(int) int) {
	slices.SortStableFunc(all, func(a, b target) int {
		return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(a.weight, b.weight)) // those of weight 0 first
	})
	for len(all) > 1 {
		same := 1
		for same < len(all) && all[same].priority == all[0].priority {
			same++
		}
		shuffle(all[:same], random)
		all = all[same:]
	}
}

// shuffle is the choice among targets of one priority.
func shuffle(same []target, random func(int) int) {
	for len(same) > 1 {
		sum := 0
		for _, t := range same {
			sum += int(t.weight)
		}
		pick := random(sum + 1)
		for i, t := range same {
			if pick -= int(t.weight); pick <= 0 {
				copy(same[1:i+1], same[:i])
				same[0] = t
				break
			}
		}
		same = same[1:]
	}
}

// addresses are those of a host that we may connect to, IPv6 and IPv4 in turns
// (RFC 8305 §4).
func (r *resolver) addresses(ctx context.Context, t target) ([]netip.AddrPort, error) {
	ips := []netip.Addr{}
	if ip, err := netip.ParseAddr(t.host); err == nil {
		ips = append(ips, ip)
	} else if ips, err = r.net.LookupNetIP(ctx, "ip", t.host+"."); err != nil {
		var dns *net.DNSError
		if errors.As(err, &dns) && dns.IsNotFound {
			return nil, fmt.Errorf("%w: %s has no address", errNowhere, t.host)
		}
		return nil, err
	}
	var six, four, out []netip.AddrPort
	for _, ip := range ips {
		switch ip = ip.Unmap(); {
		case !r.private && stream.Inside(ip):
		case ip.Is4():
			four = append(four, netip.AddrPortFrom(ip, t.port))
		default:
			six = append(six, netip.AddrPortFrom(ip, t.port))
		}
	}
	for i := range max(len(six), len(four)) {
		if i < len(six) {
			out = append(out, six[i])
		}
		if i < len(four) {
			out = append(out, four[i])
		}
	}
	if len(out) == 0 {
		return nil, errPrivate
	}
	return out[:min(len(out), maxAddresses)], nil
}

// dial connects to the first address that answers; a further one is tried whenever
// one has failed or had its time (RFC 8305 §5).
func dial(ctx context.Context, to []netip.AddrPort, connect func(context.Context, netip.AddrPort) (net.Conn, error)) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	type result struct {
		conn net.Conn
		err  error
	}
	results := make(chan result)
	pending := 0
	defer func() { // nobody is left behind
		cancel()
		for range pending {
			if r := <-results; r.conn != nil {
				_ = r.conn.Close()
			}
		}
	}()
	next := time.NewTimer(0)
	defer next.Stop()
	var errs []error
	for {
		select {
		case <-next.C:
			at := to[0]
			to = to[1:]
			pending++
			go func() {
				c, err := connect(ctx, at)
				results <- result{c, err}
			}()
			if len(to) > 0 {
				next.Reset(eyeballs)
			}
		case r := <-results:
			pending--
			switch {
			case r.err == nil:
				return r.conn, nil
			case len(to) > 0:
				next.Reset(0)
			case pending == 0:
				return nil, errors.Join(append(errs, r.err)...)
			}
			errs = append(errs, r.err)
		}
	}
}

func (t target) String() string { return net.JoinHostPort(t.host, strconv.Itoa(int(t.port))) }
