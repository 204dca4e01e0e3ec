package script

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/txtar"
)

// Script is one parsed file.
type Script struct {
	Name    string            // for reports: the path without .txtar
	Title   string            // first line of the header comment: the behaviour
	Sources []string          // what the header cites: "RFC 6121 §8.5.2.1.1", "XEP-0045 §8.2", "rule 37"
	Files   map[string][]byte // attached files; config.yaml is the server's configuration overlay
	clients []clientDecl
	steps   []step
}

// clientDecl is one `client account[/resource] [as name] [via kind]`.
type clientDecl struct {
	name, account, resource string
	via                     Via
	hasVia                  bool
}

// op is what a step does.
type op uint8

const (
	opSend op = iota
	opRaw
	opExpect
	opExact
	opAnyOrder
	opOptional
	opSilence
	opVerb // NAME verb …
	opAll  // verb NAME …: a directive without a client in front
)

// step is one logical line.
type step struct {
	line     int
	text     string // as written, continuation lines joined
	op       op
	who      string
	verb     string
	args     []string
	body     string  // XML or bytes to send
	patterns []*node // < <~ <?
	closing  bool    // the pattern is </stream:stream>
}

var sourceRef = regexp.MustCompile(`RFC ?\d+[^,;.()]*?(?:§ ?[\w.\-]*\w)|RFC ?\d+|XEP-\d{4} § ?[\w.\-]*\w|XEP-\d{4}|rule \d+|parley:[a-z]+:\d+|flow \d+`)

// ParseFile reads one script.
func ParseFile(path string) (*Script, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(strings.TrimSuffix(filepath.ToSlash(path), ".txtar"), data)
}

// Parse reads a script; errors carry name and line, all of them joined.
func Parse(scriptName string, data []byte) (*Script, error) {
	ar := txtar.Parse(data)
	s := &Script{Name: scriptName, Files: map[string][]byte{}}
	for _, f := range ar.Files {
		s.Files[f.Name] = f.Data
	}
	p := &parser{script: s, known: map[string]bool{}}
	p.logicalLines(string(ar.Comment))
	p.checkVariables()
	if len(s.steps) == 0 && len(p.errs) == 0 {
		p.fail(1, "the script has no steps")
	}
	return s, errors.Join(p.errs...)
}

type parser struct {
	script *Script
	known  map[string]bool // names of clients and connections
	errs   []error
}

func (p *parser) fail(line int, format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf("%s.txtar:%d: %s", p.script.Name, line, fmt.Sprintf(format, args...)))
}

// logicalLines joins indented lines to the one before them and parses each.
func (p *parser) logicalLines(text string) {
	var cur string
	start, header := 0, true
	flush := func() {
		if cur != "" {
			p.statement(start, cur)
		}
		cur = ""
	}
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimRight(line, " \t\r")
		switch {
		case line == "":
			flush()
		case line[0] == '#':
			flush()
			if header {
				p.headerLine(strings.TrimSpace(strings.TrimLeft(line, "#")))
			}
		case line[0] == ' ' || line[0] == '\t' || line == "}" && cur != "":
			if cur == "" {
				p.fail(i+1, "an indented line continues the one before it; there is none")
				continue
			}
			cur = join(cur, strings.TrimSpace(line))
		default:
			flush()
			header, start, cur = false, i+1, line
		}
	}
	flush()
}

// join puts a continuation line behind text: no white space between tags, one space elsewhere.
func join(text, more string) string {
	if strings.HasSuffix(text, ">") || strings.HasPrefix(more, "<") {
		return text + more
	}
	return text + " " + more
}

func (p *parser) headerLine(line string) {
	if p.script.Title == "" {
		p.script.Title = line
	}
	p.script.Sources = append(p.script.Sources, sourceRef.FindAllString(line, -1)...)
}

var directive = regexp.MustCompile(`^(client|connect|login|roster|friends|drain|set|service|together|restart|reload|kill)$`)
var variableName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*$`)
var clientName = regexp.MustCompile(`^[a-z][A-Za-z0-9_]*$`)

func (p *parser) statement(line int, text string) {
	first, rest, _ := strings.Cut(text, " ")
	rest = strings.TrimSpace(rest)
	if directive.MatchString(first) && !p.known[first] {
		p.directive(line, text, first, strings.Fields(stripComment(rest)))
		return
	}
	if !p.known[first] {
		p.fail(line, "no client or directive is named %q", first)
		return
	}
	st := step{line: line, text: text, who: first}
	word, arg, _ := strings.Cut(rest, " ")
	arg = strings.TrimSpace(arg)
	if err := st.action(word, arg); err != nil {
		p.fail(line, "%v", err)
		return
	}
	p.script.steps = append(p.script.steps, st)
}

func stripComment(s string) string {
	if i := strings.Index(s, "#"); i == 0 || i > 0 && (s[i-1] == ' ' || s[i-1] == '\t') {
		return s[:i]
	}
	return s
}

// clientVerbs are the words after a client's name, with the most arguments each takes.
var clientVerbs = map[string]int{
	"connect": 0, "auth": 0, "bind": 1, "login": 0, "drop": 0, "close": 0, "resume": 0, "eof": 0,
	"open": 0, "starttls": 0, "acks": 1, "roster": 0, "drain": 0,
}

// action parses what follows the client's name.
func (st *step) action(word, arg string) error {
	var err error
	switch word {
	case ">":
		st.op, st.body = opSend, arg
		if _, err = parseNodes(arg, false); err != nil {
			return fmt.Errorf("%w (use raw to send what is no XML)", err)
		}
	case "raw":
		st.op = opRaw
		st.body, err = unescape(arg)
	case "<":
		st.op = opExpect
		if rest, ok := strings.CutPrefix(arg, "exact "); ok {
			st.op, arg = opExact, strings.TrimSpace(rest)
		}
		err = st.pattern(arg, 1)
	case "<?":
		st.op = opOptional
		err = st.pattern(arg, 1)
	case "<~":
		st.op = opAnyOrder
		inner, ok := strings.CutPrefix(arg, "{")
		inner, ok2 := strings.CutSuffix(strings.TrimSpace(inner), "}")
		if !ok || !ok2 {
			return errors.New("write <~ { <a/> <b/> }")
		}
		err = st.pattern(inner, 0)
	case "!":
		st.op = opSilence
		if stripComment(arg) != "" {
			return errors.New("! takes nothing")
		}
	default:
		most, ok := clientVerbs[word]
		st.op, st.verb, st.args = opVerb, word, strings.Fields(stripComment(arg))
		if !ok {
			return fmt.Errorf("no action %q: use > < <? <~ ! raw or one of connect auth bind login roster drain drop close resume eof open starttls acks", word)
		}
		if len(st.args) > most {
			return fmt.Errorf("%s takes at most %d argument(s)", word, most)
		}
	}
	if st.body == "" && (st.op == opSend || st.op == opRaw) && err == nil {
		return errors.New("nothing to send")
	}
	return err
}

// pattern parses expectations; count 0 is one or more.
func (st *step) pattern(text string, count int) error {
	text = strings.TrimSpace(text)
	if text == "</stream:stream>" {
		st.closing = true
		return nil
	}
	nodes, err := parseNodes(openHeader(text), true)
	if err != nil {
		return err
	}
	if len(nodes) == 0 || count > 0 && len(nodes) != count {
		return fmt.Errorf("%d elements in the pattern (any order is <~ { … })", len(nodes))
	}
	st.patterns = nodes
	return nil
}

// openHeader lets a stream header be written in a pattern as it is on the wire, without its end tag.
func openHeader(text string) string {
	if strings.HasPrefix(text, "<stream:stream") && strings.HasSuffix(text, ">") && !strings.HasSuffix(text, "/>") && strings.Count(text, "<") == 1 {
		return strings.TrimSuffix(text, ">") + "/>"
	}
	return text
}

// unescape reads Go escapes (\x00 \u00e4 \n \t \\ \"); surrounding double quotes keep outer spaces.
func unescape(s string) (string, error) {
	if len(s) >= 2 && s[0] == '"' && s[len(s)-1] == '"' {
		s = s[1 : len(s)-1]
	}
	var b strings.Builder
	for len(s) > 0 {
		if s[0] != '\\' {
			b.WriteByte(s[0])
			s = s[1:]
			continue
		}
		if strings.HasPrefix(s, `\"`) || strings.HasPrefix(s, `\'`) {
			b.WriteByte(s[1])
			s = s[2:]
			continue
		}
		r, multi, tail, err := strconv.UnquoteChar(s, 0)
		if err != nil {
			return "", fmt.Errorf("bad escape at %.10q", s)
		}
		if multi {
			b.WriteRune(r)
		} else {
			b.WriteByte(byte(r)) // \xff is a byte, not a code point
		}
		s = tail
	}
	return b.String(), nil
}

// checkVariables finds misspelt variables: one that a pattern would bind and nothing else mentions is most likely a typo.
func (p *parser) checkVariables() {
	uses, line := map[string]int{}, map[string]int{}
	for _, st := range p.script.steps {
		for _, tok := range variable.FindAllString(st.text, -1) {
			n, _ := splitVariable(tok)
			if !variableName.MatchString(n) { // $$ $* ${…}
				continue
			}
			uses[n]++
			line[n] = st.line
		}
	}
	for n, count := range uses {
		if count == 1 && !p.known[n] && !reserved[n] && !p.declared(n) {
			p.fail(line[n], "$%s is mentioned once only: use '*' for any value, or correct the name", n)
		}
	}
}

func (p *parser) declared(n string) bool {
	for _, st := range p.script.steps {
		if (st.verb == "set" || st.verb == "service") && len(st.args) > 0 && st.args[0] == n {
			return true
		}
	}
	return false
}
