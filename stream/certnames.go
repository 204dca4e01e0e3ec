package stream

import (
	"iter"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/net/idna"
)

// Which certificate a name means.

// ascii is a domain, or *.DOMAIN, as certificates have it (RFC 5891 §5).
func ascii(domain string) string {
	below, wide := strings.CutPrefix(domain, "*.")
	a, err := idna.Lookup.ToASCII(below)
	switch {
	case err != nil:
		return strings.ToLower(domain)
	case wide:
		return "*." + a
	}
	return a
}

// nearest yields where the certificate for a name may stand, the nearest first:
// rooms.a.example, *.a.example, a.example, *.example, example.
func nearest(name string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for yield(name) {
			_, above, more := strings.Cut(name, ".")
			if !more || !yield("*."+above) {
				return
			}
			name = above
		}
	}
}

// find returns the source for a name; nil: it has none of its own.
func (c *certificates) find(name string) *source {
	s, _ := forName(*c.named.Load(), name)
	return s
}

// forName returns what of a map by domain is the nearest to a name.
func forName[V any](all map[string]V, name string) (v V, at string) {
	if len(all) == 0 || name == "" {
		return v, ""
	}
	for n := range nearest(ascii(strings.TrimSuffix(name, "."))) {
		if v, ok := all[n]; ok {
			return v, n
		}
	}
	return v, ""
}

// Own returns under which key of Domains the certificate for a name is.
func (t *TLS) Own(name string) (key string, ok bool) {
	byASCII := map[string]string{}
	for n := range t.Domains {
		byASCII[ascii(n)] = n
	}
	key, at := forName(byASCII, name)
	return key, at != ""
}

// Found yields what Directory has for a domain, the first that can be read counts.
func (t *TLS) Found(domain string) iter.Seq[CertificateFiles] {
	return func(yield func(CertificateFiles) bool) {
		if t.Directory == "" {
			return
		}
		at := filepath.Join(t.Directory, ascii(domain))
		for _, f := range []CertificateFiles{
			{at + ".crt", at + ".key"},
			{filepath.Join(at, "fullchain.pem"), filepath.Join(at, "privkey.pem")},
		} {
			if _, err := os.Stat(f.Certificate); err == nil && !yield(f) {
				return
			}
		}
	}
}
