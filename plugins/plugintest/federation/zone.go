package federation

import (
	"net"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// Zone is a name server that knows what it is told, over UDP and TCP.
type Zone struct {
	servers []*dns.Server
	address string

	mu      sync.Mutex
	records map[string][]dns.RR // by name, in lower case, with the dot at the end
	asked   map[string]int
}

func newZone() (*Zone, error) {
	z := &Zone{records: map[string][]dns.RR{}, asked: map[string]int{}}
	udp, tcp, err := both()
	if err != nil {
		return nil, err
	}
	z.address = udp.LocalAddr().String()
	z.servers = []*dns.Server{{PacketConn: udp, Handler: z}, {Listener: tcp, Handler: z}}
	for _, s := range z.servers {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { _ = s.ActivateAndServe() }()
		<-started
	}
	return z, nil
}

// both listens on one port over UDP and TCP: the one that the system chooses for one
// may be taken for the other.
func both() (udp net.PacketConn, tcp net.Listener, err error) {
	for range 20 {
		if udp, err = net.ListenPacket("udp", "127.0.0.1:0"); err != nil {
			return nil, nil, err
		}
		if tcp, err = net.Listen("tcp", udp.LocalAddr().String()); err == nil {
			return udp, tcp, nil
		}
		_ = udp.Close()
	}
	return nil, nil, err
}

func (z *Zone) close() {
	for _, s := range z.servers {
		_ = s.Shutdown()
	}
}

// Address is where it answers.
func (z *Zone) Address() string { return z.address }

// SRV adds a record; weight and priority are 0.
func (z *Zone) SRV(name, host string, port int) { z.SRVOf(name, host, port, 0, 0) }

// SRVOf adds a record.
func (z *Zone) SRVOf(name, host string, port, priority, weight int) {
	z.add(&dns.SRV{Hdr: header(name, dns.TypeSRV), Target: dns.Fqdn(host), Port: uint16(port), Priority: uint16(priority), Weight: uint16(weight)}) //nolint:gosec // a test's
}

// Move lets one SRV record take the place of all that is known of a name, so that
// nobody finds none meanwhile.
func (z *Zone) Move(name, host string, port int) {
	z.set(name, &dns.SRV{Hdr: header(name, dns.TypeSRV), Target: dns.Fqdn(host), Port: uint16(port)}) //nolint:gosec // a test's
}

// Host sets the addresses of a host.
func (z *Zone) Host(name string, addresses ...string) {
	var all []dns.RR
	for _, a := range addresses {
		ip := net.ParseIP(a)
		if four := ip.To4(); four != nil {
			all = append(all, &dns.A{Hdr: header(name, dns.TypeA), A: four})
			continue
		}
		all = append(all, &dns.AAAA{Hdr: header(name, dns.TypeAAAA), AAAA: ip})
	}
	z.set(name, all...)
}

func (z *Zone) set(name string, all ...dns.RR) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.records[key(name)] = all
}

// Forget removes what is known of a name.
func (z *Zone) Forget(name string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	delete(z.records, key(name))
}

// Asked is how often a name was asked for.
func (z *Zone) Asked(name string) int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.asked[key(name)]
}

func key(name string) string { return strings.ToLower(dns.Fqdn(name)) }

func header(name string, typ uint16) dns.RR_Header {
	return dns.RR_Header{Name: key(name), Rrtype: typ, Class: dns.ClassINET, Ttl: 1}
}

func (z *Zone) add(r dns.RR) {
	z.mu.Lock()
	defer z.mu.Unlock()
	k := key(r.Header().Name)
	z.records[k] = append(z.records[k], r)
}

// ServeDNS implements dns.Handler.
func (z *Zone) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg)
	m.SetReply(q)
	m.Authoritative, m.RecursionAvailable = true, true
	z.mu.Lock()
	for _, question := range q.Question {
		z.asked[key(question.Name)]++
		all, known := z.records[key(question.Name)]
		if !known {
			m.Rcode = dns.RcodeNameError
		}
		for _, r := range all {
			if r.Header().Rrtype == question.Qtype {
				m.Answer = append(m.Answer, r)
			}
		}
	}
	z.mu.Unlock()
	_ = w.WriteMsg(m)
}
