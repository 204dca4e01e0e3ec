package script

import (
	"fmt"
	"strings"
)

// difference says where and how the nearest candidate differs from a pattern.
type difference struct {
	path  string
	text  string
	score int // how much of the pattern had matched before; higher is nearer
}

func (d *difference) String() string { return d.path + ": " + d.text }

// matcher compares patterns with what came. look resolves names; exact forbids everything the pattern does not name.
type matcher struct {
	look  lookup
	exact bool
	err   error // a variable that could not be resolved
}

// match returns the bindings after a match, or how the node differs.
func (m *matcher) match(p, n *node, b binds, path string) (binds, *difference) {
	path = strings.TrimPrefix(path+"/"+p.name.local, "/")
	if p.name != n.name {
		return b, &difference{path: path, text: fmt.Sprintf("is %s, expected %s", n.name, p.name)}
	}
	score := 1
	for _, a := range p.attrs {
		next, diff := m.attribute(a, n, b)
		if diff != nil {
			diff.path, diff.score = path+"@"+a.name.local, score
			return b, diff
		}
		b = next
		score += 2
	}
	b, diff := m.text(p, n, b)
	if diff != nil {
		diff.path, diff.score = path, score+1
		return b, diff
	}
	if m.exact {
		if diff := extra(p, n); diff != nil {
			diff.path, diff.score = path, score+2
			return b, diff
		}
		return m.inOrder(p, n, b, path, score+2)
	}
	return m.children(p.kids, n, make([]bool, len(n.kids)), b, path, score+2)
}

// attribute: '*' any value, '!' not there, else compared with variables filled in.
func (m *matcher) attribute(a attr, n *node, b binds) (binds, *difference) {
	got, there := n.attr(a.name)
	if a.value == "!" {
		if there {
			return b, &difference{text: fmt.Sprintf("is there (%q), expected not to be", got)}
		}
		return b, nil
	}
	if !there {
		return b, &difference{text: fmt.Sprintf("is missing, expected %q", show(a.value, b, m.look))}
	}
	return m.value(a.value, got, b)
}

func (m *matcher) value(pattern, got string, b binds) (binds, *difference) {
	next, ok, err := matchValue(pattern, got, b, m.look)
	if err != nil && m.err == nil {
		m.err = err
	}
	if !ok {
		return b, &difference{text: fmt.Sprintf("is %q, expected %q", got, show(pattern, b, m.look))}
	}
	return next, nil
}

// text is compared when the pattern has some; around child elements white space is layout and does not count.
func (m *matcher) text(p, n *node, b binds) (binds, *difference) {
	want, got := p.text, n.text
	if len(p.kids) > 0 {
		want, got = strings.TrimSpace(want), strings.TrimSpace(got)
	}
	if want == "" {
		if m.exact && strings.TrimSpace(got) != "" {
			return b, &difference{text: fmt.Sprintf("text is %q, expected none", got)}
		}
		return b, nil
	}
	if want == "*" && got == "" {
		return b, &difference{text: "text is missing"}
	}
	next, diff := m.value(want, got, b)
	if diff != nil {
		diff.text = "text " + diff.text
	}
	return next, diff
}

// extra finds, for exact, the first attribute or the number of children nobody asked for.
func extra(p, n *node) *difference {
	for _, a := range n.attrs {
		if _, named := p.attr(a.name); !named {
			return &difference{text: fmt.Sprintf("has an attribute %s=%q that exact does not name", a.name, a.value)}
		}
	}
	want := 0
	for _, k := range p.kids {
		if !k.not {
			want++
		}
	}
	if want != len(n.kids) {
		return &difference{text: fmt.Sprintf("has %d children, exact names %d", len(n.kids), want)}
	}
	return nil
}

func (m *matcher) inOrder(p, n *node, b binds, path string, score int) (binds, *difference) {
	i := 0
	for _, k := range p.kids {
		if k.not {
			continue
		}
		next, diff := m.match(k, n.kids[i], b, path)
		if diff != nil {
			diff.score += score
			return b, diff
		}
		b = next
		i++
	}
	return b, nil
}

// children gives every pattern child a different child of the element, in any order, trying all assignments.
func (m *matcher) children(pats []*node, n *node, used []bool, b binds, path string, score int) (binds, *difference) {
	if len(pats) == 0 {
		return b, nil
	}
	p, rest := pats[0], pats[1:]
	if p.not {
		return m.absent(p, rest, n, used, b, path, score)
	}
	best := &difference{path: path, text: "has no child " + showNode(p, b, m.look), score: score}
	for i, k := range n.kids {
		if used[i] || k.name != p.name {
			continue
		}
		next, diff := m.match(p, k, b, path)
		if diff == nil {
			used[i] = true
			if next, diff = m.children(rest, n, used, next, path, score+2); diff == nil {
				return next, nil
			}
			used[i] = false
		} else {
			diff.score += score
		}
		if diff.score >= best.score {
			best = diff
		}
	}
	return b, best
}

// absent is <not:x/>: no child may match, and what it would bind stays unbound.
func (m *matcher) absent(p *node, rest []*node, n *node, used []bool, b binds, path string, score int) (binds, *difference) {
	for _, k := range n.kids {
		if k.name != p.name {
			continue
		}
		loose := matcher{look: m.look}
		if _, diff := loose.match(p, k, b, path); diff == nil {
			return b, &difference{path: path, text: "has a child " + k.String() + " that must not be there", score: score}
		}
	}
	return m.children(rest, n, used, b, path, score+1)
}

// showNode writes a pattern with the values known so far.
func showNode(p *node, b binds, look lookup) string {
	return showCopy(p, b, look).String()
}

func showCopy(p *node, b binds, look lookup) *node {
	c := *p
	c.text = show(p.text, b, look)
	c.attrs = nil
	for _, a := range p.attrs {
		c.attrs = append(c.attrs, attr{a.name, show(a.value, b, look)})
	}
	c.kids = nil
	for _, k := range p.kids {
		c.kids = append(c.kids, showCopy(k, b, look))
	}
	return &c
}
