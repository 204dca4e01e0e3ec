package main

import (
	"context"

	"parley/plugins/config"
	"parley/plugins/muc"
	"parley/plugins/pubsub"
	"parley/processor"
	"parley/stream"
	"parley/stream/s2s"
)

// defaultServerPort is where servers are looked for that have no record (RFC 6120 §3.2.2).
const defaultServerPort = "5269"

// servers looks at what the DNS says to other servers of each domain, and of the services
// that people elsewhere may want.
func (e *examination) servers(ctx context.Context) []result {
	if !e.tree.Enabled(stream.Name, s2s.Name) {
		return nil
	}
	c, err := config.Get[s2s.Config](e.tree, config.ComponentPath(stream.Name, s2s.Name))
	if err != nil {
		return []result{fault("configuration", "", "%v", err)}
	}
	var out []result
	for _, d := range e.domains {
		if private(d) {
			continue
		}
		for _, name := range append([]string{d}, e.hosted(d)...) {
			out = append(out, e.server(ctx, name, d, c)...)
		}
	}
	return out
}

// hosted are the services of a domain that people of other servers reach.
func (e *examination) hosted(domain string) (names []string) {
	if c, err := config.Get[muc.Config](e.tree, config.ComponentPath(processor.Name, muc.Name)); err == nil && e.tree.Enabled(processor.Name, muc.Name) {
		names = append(names, c.HostPrefix+"."+domain)
	}
	if c, err := config.Get[pubsub.Config](e.tree, config.ComponentPath(processor.Name, pubsub.Name)); err == nil && e.tree.Enabled(processor.Name, pubsub.Name) && c.Prefix != "" {
		names = append(names, c.Prefix+"."+domain)
	}
	return names
}

// server looks at the ways to one name. Without records it is enough that the name has an
// address, and the server the usual port.
func (e *examination) server(ctx context.Context, name, domain string, c s2s.Config) (out []result) {
	ways := []service{
		{"xmpp-server", "other servers, STARTTLS", c.Address, "RFC 6120 §3.2.1"},
		{"xmpps-server", "other servers, direct TLS", c.Direct, "XEP-0368 §3"},
	}
	some := false
	for _, s := range ways {
		if _, found, err := e.dns.LookupSRV(ctx, s.name, "tcp", name); err == nil && len(found) > 0 {
			some = true
			if s.address != "" {
				out = append(out, e.srv(ctx, name, s))
			}
		}
	}
	if some {
		return out
	}
	_, err := e.dns.LookupHost(ctx, name)
	switch {
	case c.Address == "":
		return []result{e.srv(ctx, name, ways[1])}
	case err == nil && port(c.Address) == defaultServerPort:
		return []result{ok("dns", "other servers look for %s at its address, port %s", name, defaultServerPort)}
	}
	fix := "add:\n" + srvRecordTo(name, domain, ways[0])
	if err != nil {
		return []result{warn("dns", fix, "other servers do not find %s: it has no record for them, and no address (%s)", name, dnsReason(err))}
	}
	return []result{warn("dns", fix, "other servers look for %s at port %s, this one listens for them on %s", name, defaultServerPort, port(c.Address))}
}
