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
	var open []service
	some := false
	for _, s := range []service{
		{"xmpp-server", "other servers, STARTTLS", c.Address, "RFC 6120 §3.2.1"},
		{"xmpps-server", "other servers, direct TLS", c.Direct, "XEP-0368 §3"},
	} {
		_, found, err := e.dns.LookupSRV(ctx, s.name, "tcp", name)
		has := err == nil && len(found) > 0
		if s.address != "" {
			open = append(open, s)
		}
		switch {
		case has && s.address == "":
			out = append(out, warn("dns", "remove it, or open the door (servers.streamer.components.s2s)", "_%s._tcp.%s leads to a door that is closed", s.name, name))
		case has:
			some = true
			out = append(out, e.srvTo(ctx, name, domain, s))
		case err != nil && !notFound(err):
			return append(out, warn("dns", "try again", "what other servers find of %s is not known: the DNS does not answer", name))
		}
	}
	if some || len(open) == 0 {
		return out
	}
	_, err := e.dns.LookupHost(ctx, name)
	if c.Address == "" {
		return append(out, e.srvTo(ctx, name, domain, open[0]))
	}
	fix := "add:\n" + srvRecordTo(name, domain, open[0])
	switch {
	case err != nil:
		return append(out, warn("dns", fix, "other servers do not find %s: it has no record for them, and no address (%s)", name, dnsReason(err)))
	case port(c.Address) != defaultServerPort:
		return append(out, warn("dns", fix, "other servers look for %s at port %s, this one listens for them on %s", name, defaultServerPort, port(c.Address)))
	}
	return append(out, ok("dns", "other servers look for %s at its address, port %s", name, defaultServerPort))
}
