// Package jid holds XMPP addresses.
//
// Specifications: RFC 7622 (address format), RFC 8265 (PRECIS user names and opaque strings), RFC 5891 and UTS #46 (IDNA).
//
// The flow: Parse splits a string, prepares each part and keeps the result, and only the result: an address exists in
// prepared form or not at all, so that == is RFC 7622's comparison. Plain lower-case ASCII, nearly all there is on the wire,
// is recognised and passed on without any Unicode work. A Cache in front of Parse saves the rest.
package jid

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
	"golang.org/x/text/secure/precis"
)

// ErrMalformed is wrapped by every error of this package (stanza condition jid-malformed, RFC 7622 §4).
var ErrMalformed = errors.New("malformed JID")

// maxPart is the greatest length of a part in octets after mapping. RFC 7622 §3.2, §3.3, §3.4
const maxPart = 1023

// maxRawPart bounds the work on a part before mapping, which may shorten it, though never eightfold.
const maxRawPart = 8 * maxPart

// JID is a prepared address; comparable with ==. The zero value is no address.
type JID struct {
	s     string // local@domain/resource
	local uint16 // length of the localpart
	bare  uint16 // length of local@domain
}

// Parse splits s (RFC 7622 §3.1, §3.2) and prepares its parts. Errors wrap ErrMalformed.
func Parse(s string) (JID, error) {
	local, domain, resource, err := split(s)
	if err != nil {
		return JID{}, err
	}
	return prepare(s, local, domain, resource)
}

// MustParse is Parse for constants and tests: it panics on an error.
func MustParse(s string) JID {
	j, err := Parse(s)
	if err != nil {
		panic(fmt.Sprintf("jid.MustParse(%q): %v", s, err))
	}
	return j
}

// New prepares an address from its parts; an empty localpart or resourcepart is none. Errors wrap ErrMalformed.
func New(local, domain, resource string) (JID, error) { return prepare("", local, domain, resource) }

// Local returns the localpart, or "".
func (j JID) Local() string { return j.s[:j.local] }

// Domain returns the domainpart; "" for the zero value only.
func (j JID) Domain() string { return j.s[j.domainStart():j.bare] }

// Resource returns the resourcepart, or "".
func (j JID) Resource() string {
	if j.IsBare() {
		return ""
	}
	return j.s[j.bare+1:]
}

// Bare returns the address without its resourcepart.
func (j JID) Bare() JID { return JID{j.s[:j.bare], j.local, j.bare} }

// Host returns the address of the domain alone.
func (j JID) Host() JID {
	d := j.Domain()
	return JID{d, 0, uint16(len(d))}
}

// IsBare reports whether there is no resourcepart.
func (j JID) IsBare() bool { return int(j.bare) == len(j.s) }

// IsFull reports whether there is a resourcepart.
func (j JID) IsFull() bool { return !j.IsBare() }

// IsDomain reports whether the address is a mere domainpart.
func (j JID) IsDomain() bool { return j.local == 0 && j.IsBare() && j.s != "" }

// IsZero reports whether j is no address at all.
func (j JID) IsZero() bool { return j.s == "" }

// String returns the prepared form; "" for the zero value.
func (j JID) String() string { return j.s }

// WithResource returns the bare address with another resourcepart; "" gives the bare address. Errors wrap ErrMalformed.
func (j JID) WithResource(resource string) (JID, error) {
	if j.IsZero() {
		return JID{}, malformed("domainpart", "empty")
	}
	bare := j.Bare()
	if resource == "" {
		return bare, nil
	}
	r, err := prepareResource(resource)
	if err != nil {
		return JID{}, err
	}
	return JID{bare.s + "/" + r, j.local, j.bare}, nil
}

// MarshalText implements encoding.TextMarshaler; the zero value is empty.
func (j JID) MarshalText() ([]byte, error) { return []byte(j.s), nil }

// UnmarshalText implements encoding.TextUnmarshaler; empty text is the zero value.
func (j *JID) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*j = JID{}
		return nil
	}
	got, err := Parse(string(b))
	if err != nil {
		return err
	}
	*j = got
	return nil
}

func (j JID) domainStart() uint16 {
	if j.local == 0 {
		return 0
	}
	return j.local + 1
}

// split cuts s at the first '/', then at the first '@' before it, prior to any mapping. RFC 7622 §3.1, §3.2
func split(s string) (local, domain, resource string, err error) {
	domain, resource, found := strings.Cut(s, "/")
	if found && resource == "" {
		return "", "", "", malformed("resourcepart", "empty") // RFC 7622 §3.4
	}
	if before, after, found := strings.Cut(domain, "@"); found {
		if before == "" {
			return "", "", "", malformed("localpart", "empty") // RFC 7622 §3.3
		}
		local, domain = before, after
	}
	return local, domain, resource, nil
}

// prepare enforces the parts and joins them. whole is the string they were cut from, reused if nothing changed.
func prepare(whole, local, domain, resource string) (JID, error) {
	l, err := prepareLocal(local)
	if err != nil {
		return JID{}, err
	}
	d, err := prepareDomain(domain)
	if err != nil {
		return JID{}, err
	}
	r, err := prepareResource(resource)
	if err != nil {
		return JID{}, err
	}
	j := JID{s: whole, local: uint16(len(l)), bare: uint16(len(d))}
	if l != "" {
		j.bare += j.local + 1
	}
	if whole == "" || l != local || d != domain || r != resource {
		j.s = join(l, d, r)
	}
	return j, nil
}

func join(local, domain, resource string) string {
	s := domain
	if local != "" {
		s = local + "@" + s
	}
	if resource != "" {
		s += "/" + resource
	}
	return s
}

func prepareLocal(s string) (string, error) {
	if isPlain(s, plainLocal) {
		return s, nil
	}
	s, err := enforce("localpart", s, precis.UsernameCaseMapped.String)
	if err != nil {
		return "", err
	}
	if strings.ContainsAny(s, `"&'/:<>@`) { // RFC 7622 §3.3.1
		return "", malformed("localpart", "forbidden character")
	}
	return s, nil
}

func prepareResource(s string) (string, error) {
	if isPlain(s, plainResource) {
		return s, nil
	}
	return enforce("resourcepart", s, precis.OpaqueString.String) // RFC 7622 §3.4
}

// enforce applies a mapping and refuses what the mapping does not leave alone the second time: such a string would
// be one address here and another one at the next server.
func enforce(part, s string, mapping func(string) (string, error)) (string, error) {
	if len(s) > maxRawPart {
		return "", malformed(part, "too long")
	}
	if !utf8.ValidString(s) {
		return "", malformed(part, "not UTF-8")
	}
	once, err := mapping(s)
	if err != nil {
		return "", malformed(part, err.Error())
	}
	if once == "" {
		return "", malformed(part, "empty")
	}
	if len(once) > maxPart {
		return "", malformed(part, "too long")
	}
	if twice, err := mapping(once); err != nil || twice != once {
		return "", malformed(part, "unstable under preparation")
	}
	return once, nil
}

// prepareDomain enforces a domainpart: a domain name, or an IP address (an IPv6 one in brackets). RFC 7622 §3.2
func prepareDomain(s string) (string, error) {
	// RFC 7622 §3.2: a final dot goes before any other step.
	s = strings.TrimSuffix(s, ".")
	if isPlainDomain(s) {
		return s, nil
	}
	if strings.HasPrefix(s, "[") {
		return prepareIPv6(s)
	}
	return enforce("domainpart", s, mapDomain)
}

func prepareIPv6(s string) (string, error) {
	if inner, ok := strings.CutSuffix(s[1:], "]"); ok {
		// One spelling (RFC 5952), for comparison is octet by octet. A zone means something on one machine only.
		if ip, err := netip.ParseAddr(inner); err == nil && ip.Is6() && ip.Zone() == "" {
			return "[" + ip.String() + "]", nil
		}
	}
	return "", malformed("domainpart", "not an IPv6 address")
}

// maxLabel is how many octets a label may have as an A-label (RFC 5890 §2.3.1, by way of RFC 7622 §3.2).
const maxLabel = 63

// mapDomain turns A-labels into U-labels and maps case and width (RFC 7622 §3.2.1, §3.2.2; RFC 5895 as UTS #46 has it).
func mapDomain(s string) (string, error) {
	// A Profile is immutable; making one costs little beside its use.
	profile := idna.New(idna.MapForLookup(), idna.BidiRule(), idna.Transitional(false))
	d, err := profile.ToUnicode(s)
	if err != nil {
		return "", err
	}
	ascii, err := profile.ToASCII(d)
	if err != nil {
		return "", err
	}
	for label := range strings.SplitSeq(ascii, ".") {
		switch {
		case label == "":
			return "", errEmptyLabel
		case len(label) > maxLabel:
			return "", errLongLabel
		}
	}
	if strings.ContainsAny(d, "@/[]") { // would be split elsewhere the next time
		return "", errSeparator
	}
	return d, nil
}

var (
	errEmptyLabel = errors.New("empty label")
	errLongLabel  = errors.New("label of more than 63 octets")
	errSeparator  = errors.New("separator within")
)

func malformed(part, why string) error {
	return fmt.Errorf("%w: %s: %s", ErrMalformed, part, why)
}
