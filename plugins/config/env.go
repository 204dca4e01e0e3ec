package config

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

const envPrefix = "PARLEY_"

// envName is the variable that sets a key: storage.dsn is PARLEY_STORAGE_DSN.
func (n *node) envName() string {
	return envPrefix + strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case (r >= 'A' && r <= 'Z') || (r >= '0' && r <= '9'):
			return r
		}
		return '_'
	}, strings.Join(n.segments(), "."))
}

// foreign matches the variables with our prefix that are not ours: those of the
// tests, and those Kubernetes puts into every container when a service is
// called parley or parley-something.
var foreign = regexp.MustCompile(`(?s)^PARLEY_(TEST_.*|(\w+_)?SERVICE_(HOST|PORT(_\w+)?)=.*|(\w+_)?PORT(_\d+_(TCP|UDP))?=(tcp|udp)://.*|(\w+_)?PORT_\d+_(TCP|UDP)_(PROTO|PORT|ADDR)=.*)$`)

// environment applies the variables. A variable stands for the path whose
// letters it has; entries of maps are those that the file or the defaults
// have, for a name alone does not say where a new one would begin.
func (l *loader) environment() {
	var given []string
	for _, pair := range l.in.Environ {
		if strings.HasPrefix(pair, envPrefix) {
			given = append(given, pair)
		}
	}
	if len(given) == 0 {
		return
	}
	slices.Sort(given)
	table := map[string][]*node{}
	l.root.each(func(n *node) {
		if n.spec.kind != kSection {
			name := n.envName()
			table[name] = append(table[name], n)
		}
	})
	for _, pair := range given {
		name, value, _ := strings.Cut(pair, "=")
		ly := layer{source: Source{Kind: FromEnv, Name: name}, origin: "environment " + name}
		switch nodes := table[name]; {
		case len(nodes) == 1:
			l.applyText(nodes[0], value, ly)
		case len(nodes) > 1:
			l.report(ly, pos{}, nil, fmt.Sprintf("means both %s and %s", nodes[0].path(), nodes[1].path()), "set them in the file")
		case !foreign.MatchString(pair):
			hint := ""
			if near := nearest(name, slices.Sorted(maps.Keys(table))); near != "" {
				hint = fmt.Sprintf("did you mean %s?", near)
			}
			l.report(ly, pos{}, nil, "unknown variable", hint)
		}
	}
}
