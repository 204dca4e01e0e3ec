package script

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// variable finds $name, $name.field, $$ (a dollar sign), $* (any run of characters; patterns only) and ${text*n} (repetition).
var variable = regexp.MustCompile(`\$\$|\$\*|\$\{[^}]*\*[0-9]+\}|\$[A-Za-z][A-Za-z0-9_]*(?:\.(?:full|user|resource|password|plain|h|sent|smid|streamid)\b)?`)

// reserved names cannot be bound; services among them need no `service` line.
var reserved = map[string]bool{
	"domain": true, "id": true, "run": true,
	"muc": true, "pubsub": true, "upload": true, "proxy": true, "search": true,
}

func splitVariable(tok string) (base, field string) {
	base, field, _ = strings.Cut(strings.TrimPrefix(tok, "$"), ".")
	return base, field
}

// binds are the variables a script has bound. Matching works on copies, so that a failed attempt binds nothing.
type binds map[string]string

func (b binds) with(key, value string) binds {
	c := make(binds, len(b)+1)
	for k, v := range b {
		c[k] = v
	}
	c[key] = value
	return c
}

// lookup resolves $base.field outside the bound variables: clients, domain, services. ok is false for an unknown name.
type lookup func(base, field string) (value string, ok bool, err error)

// expand fills in every variable of what is sent. escape is applied to values, not to the text around them.
func expand(text string, b binds, look lookup, escape func(string) string) (string, error) {
	var first error
	out := variable.ReplaceAllStringFunc(text, func(tok string) string {
		v, ok, err := resolve(tok, b, look)
		if err == nil && !ok {
			err = fmt.Errorf("%s has no value", tok)
		}
		if err != nil && first == nil {
			first = err
		}
		return escape(v)
	})
	return out, first
}

func resolve(tok string, b binds, look lookup) (string, bool, error) {
	switch {
	case tok == "$$":
		return "$", true, nil
	case tok == "$*":
		return "", false, nil
	case strings.HasPrefix(tok, "${"):
		i := strings.LastIndexByte(tok, '*')
		n, err := strconv.Atoi(tok[i+1 : len(tok)-1])
		if err != nil || n > 1<<26 {
			return "", false, fmt.Errorf("%s: cannot repeat that often", tok)
		}
		return strings.Repeat(tok[2:i], n), true, nil
	}
	base, field := splitVariable(tok)
	if v, ok := b[base]; ok {
		if field != "" { // "$x.full" where x is no client: a dot that belongs to the text
			v += "." + field
		}
		return v, true, nil
	}
	return look(base, field)
}

// matchValue compares a pattern's value (attribute or text) with what came and returns the bindings it made.
func matchValue(pattern, got string, b binds, look lookup) (binds, bool, error) {
	if pattern == "*" {
		return b, true, nil
	}
	var re strings.Builder
	var names []string
	free, last := false, 0
	re.WriteString(`(?s)^`)
	for _, loc := range variable.FindAllStringIndex(pattern, -1) {
		re.WriteString(regexp.QuoteMeta(pattern[last:loc[0]]))
		last = loc[1]
		tok := pattern[loc[0]:loc[1]]
		v, ok, err := resolve(tok, b, look)
		switch {
		case err != nil:
			return b, false, err
		case ok:
			re.WriteString(regexp.QuoteMeta(v))
		case tok == "$*":
			free = true
			re.WriteString(`.*`)
		default:
			free = true
			base, _ := splitVariable(tok)
			names = append(names, base)
			re.WriteString(`(.+)`)
		}
	}
	re.WriteString(regexp.QuoteMeta(pattern[last:]) + `$`)
	if !free && last == 0 {
		return b, pattern == got, nil
	}
	x, err := regexp.Compile(re.String())
	if err != nil { // a value beyond what a regular expression may hold
		return b, false, err
	}
	m := x.FindStringSubmatch(got)
	if m == nil {
		return b, false, nil
	}
	out := b
	for i, n := range names {
		if v, bound := out[n]; bound && v != m[i+1] {
			return b, false, nil
		}
		out = out.with(n, m[i+1])
	}
	return out, true, nil
}

// show writes a pattern value for a report: variables that have a value are replaced.
func show(text string, b binds, look lookup) string {
	return variable.ReplaceAllStringFunc(text, func(tok string) string {
		if v, ok, err := resolve(tok, b, look); err == nil && ok && len(v) < 2000 {
			return v
		}
		return tok
	})
}
