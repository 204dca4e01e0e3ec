package abuse

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"testing"
)

// checkStream asserts that b is a sequence of XML streams as RFC 6120 §11.1
// allows them, each ended or cut between two first-level elements. It stands
// on encoding/xml's tokens alone, so it shares nothing with the house's reader.
func checkStream(b []byte) error {
	for len(b) > 0 {
		end := len(b)
		if i := bytes.Index(b[1:], []byte("<?xml ")); i >= 0 {
			end = i + 1
		}
		c := checker{cut: true}
		if err := c.run(b[:end]); err != nil {
			return err
		}
		b = b[end:]
	}
	return nil
}

// checkFrame asserts that b is exactly one element (RFC 7395 §3.3.3).
func checkFrame(b []byte) error { return (&checker{}).run(b) }

// checker follows one document.
type checker struct {
	cut  bool // the root may stay open
	open []xml.Name
	ns   []map[string]bool // prefixes that each open element declares
	root bool
}

var errXML = errors.New("not well-formed")

func (c *checker) run(b []byte) error {
	d := xml.NewDecoder(bytes.NewReader(b))
	for {
		t, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := c.token(t); err != nil {
			return err
		}
	}
	if len(c.open) > 1 || len(c.open) == 1 && !c.cut || !c.root {
		return fmt.Errorf("%w: ends inside of %v", errXML, c.open)
	}
	return nil
}

func (c *checker) token(t xml.Token) error {
	switch t := t.(type) {
	case xml.StartElement:
		if len(c.open) == 0 && c.root {
			return fmt.Errorf("%w: a second root", errXML)
		}
		c.root = true
		c.open = append(c.open, t.Name)
		return c.names(t)
	case xml.EndElement:
		if len(c.open) == 0 || c.open[len(c.open)-1] != t.Name {
			return fmt.Errorf("%w: </%s> closes %v", errXML, t.Name.Local, c.open)
		}
		c.open, c.ns = c.open[:len(c.open)-1], c.ns[:len(c.ns)-1]
		return nil
	case xml.CharData:
		if len(c.open) == 0 && len(bytes.TrimSpace(t)) > 0 {
			return fmt.Errorf("%w: text outside of the root", errXML)
		}
		return nil
	case xml.ProcInst: // the declaration
		if t.Target == "xml" && !c.root && c.cut {
			return nil
		}
	}
	return fmt.Errorf("%w: restricted XML %T (RFC 6120 §11.1)", errXML, t)
}

// names checks attributes and prefixes (Namespaces in XML §5, §6.3).
func (c *checker) names(t xml.StartElement) error {
	declared, seen := map[string]bool{}, map[xml.Name]bool{}
	for _, a := range t.Attr {
		if seen[a.Name] {
			return fmt.Errorf("%w: attribute %s twice", errXML, a.Name.Local)
		}
		seen[a.Name] = true
		if a.Name.Space == "xmlns" {
			declared[a.Name.Local] = true
		}
	}
	c.ns = append(c.ns, declared)
	if !c.known(t.Name.Space) {
		return fmt.Errorf("%w: prefix %s is not declared", errXML, t.Name.Space)
	}
	for _, a := range t.Attr {
		if a.Name.Space != "xmlns" && !c.known(a.Name.Space) {
			return fmt.Errorf("%w: prefix %s is not declared", errXML, a.Name.Space)
		}
	}
	return nil
}

func (c *checker) known(prefix string) bool {
	if prefix == "" || prefix == "xml" {
		return true
	}
	for _, m := range c.ns {
		if m[prefix] {
			return true
		}
	}
	return false
}

func TestChecker(t *testing.T) {
	for text, good := range map[string]bool{
		"<?xml version='1.0'?><s:s xmlns:s='u'><a/>":                                   true,
		"<?xml version='1.0'?><s:s xmlns:s='u'><a>":                                    false,
		"<?xml version='1.0'?><s:s xmlns:s='u'></s:s>":                                 true,
		"<?xml version='1.0'?><s:s xmlns:s='u'><?xml version='1.0'?><s:s xmlns:s='u'>": true,
		"<a><b x='1' x='2'/></a>":                                                      false,
		"<a><p:b/></a>":                                                                false,
		"<a><b p:x='1'/></a>":                                                          false,
		"<a><!-- --></a>":                                                              false,
		"<a>&x;</a>":                                                                   false,
		"<a>\x01</a>":                                                                  false,
		"<a></b>":                                                                      false,
		"<a/>x":                                                                        false,
	} {
		if err := checkStream([]byte(text)); (err == nil) != good {
			t.Errorf("%s: %v", text, err)
		}
	}
}
