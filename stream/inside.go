package stream

import "net/netip"

// inner is what netip does not name: RFC 6598's address space of carriers, "this
// network" (RFC 791), and IPv4 inside IPv6 by translation (RFC 6052), which a
// gateway here may lead back inside.
var inner = []netip.Prefix{
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("64:ff9b::/96"),
	netip.MustParsePrefix("64:ff9b:1::/48"), // RFC 8215
	netip.MustParsePrefix("2002::/16"),      // 6to4, RFC 7526
	netip.MustParsePrefix("192.0.0.0/24"),   // RFC 6890
	netip.MustParsePrefix("198.18.0.0/15"),  // RFC 2544
	netip.MustParsePrefix("240.0.0.0/4"),    // RFC 1112
	netip.MustParsePrefix("255.255.255.255/32"),
}

// Inside reports whether an address leads to this machine, its network or what is
// nobody's: nobody from outside may let this server connect there (reliability
// row 20).
func Inside(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	if ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast() || ip.IsUnspecified() || ip.IsMulticast() {
		return true
	}
	for _, p := range inner {
		if p.Contains(ip) {
			return true
		}
	}
	return false
}
