package config

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

const (
	maxFile  = 1 << 20 // bytes of a configuration file
	maxDepth = 32      // levels of a configuration file
)

// pos is a place in the file; zero is none.
type pos struct{ line, column int }

type shape uint8

const (
	isNull shape = iota
	isScalar
	isList
	isMapping
	isRefused // reported already
)

var shapeNames = [...]string{isNull: "nothing", isScalar: "a single value", isList: "a list", isMapping: "a mapping"}

// raw is YAML as it was written, before it meets the schema.
type raw struct {
	at    pos
	shape shape
	text  string // of a scalar
	items []*raw // of a list
	pairs []pair // of a mapping
}

type pair struct {
	key   string
	at    pos
	value *raw
}

// reader turns goccy's tree into raw. What it cannot accept it reports:
// duplicate keys, and the parts of YAML that let one line mean another
// (anchors, aliases, merges, tags, several documents).
type reader struct {
	report func(at pos, message, hint string)
}

// read parses one document; nil after a syntax error, which it reported.
func (r *reader) read(data []byte) (root *raw) {
	if len(data) > maxFile {
		r.report(pos{}, fmt.Sprintf("longer than %s", Size(maxFile)), "")
		return nil
	}
	if at, bad := firstInvalid(data); bad {
		r.report(at, "not valid UTF-8", "")
		return nil
	}
	// The parser is somebody else's and reads what people type: a panic in it
	// is a file that cannot be read, not the end of a running server on reload.
	defer func() {
		if p := recover(); p != nil {
			r.report(pos{}, "not readable as YAML", "")
			root = nil
		}
	}()
	text := strings.TrimPrefix(string(data), "\ufeff")
	file, err := parser.ParseBytes([]byte(text), 0, parser.AllowDuplicateMapKey())
	if err != nil {
		r.syntax(err)
		return nil
	}
	var body ast.Node
	for _, doc := range file.Docs {
		if doc == nil || doc.Body == nil {
			continue
		}
		if body != nil {
			r.report(place(doc.Body.GetToken()), "a second document", "one file holds one configuration")
			continue
		}
		body = doc.Body
	}
	return r.convert(body, pos{1, 1}, 0)
}

func (r *reader) syntax(err error) {
	at, message := pos{}, err.Error()
	if syntax, ok := errors.AsType[*yaml.SyntaxError](err); ok {
		at, message = place(syntax.Token), syntax.Message
	}
	message, _, _ = strings.Cut(message, "\n")
	hint := ""
	if strings.Contains(message, "\t") {
		message = strings.ReplaceAll(message, "\t", `\t`)
		hint = "indent with spaces"
	}
	r.report(at, message, hint)
}

func (r *reader) convert(n ast.Node, at pos, depth int) *raw {
	if n == nil {
		return &raw{at: at}
	}
	if depth > maxDepth {
		r.report(at, fmt.Sprintf("more than %d levels deep", maxDepth), "")
		return &raw{at: at}
	}
	if t := n.GetToken(); t != nil && t.Position != nil {
		at = place(t)
	}
	switch n := n.(type) {
	case *ast.NullNode, *ast.CommentGroupNode, *ast.CommentNode:
		return &raw{at: at}
	case *ast.StringNode:
		return &raw{at: at, shape: isScalar, text: n.Value}
	case *ast.LiteralNode:
		return &raw{at: at, shape: isScalar, text: n.Value.Value}
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return &raw{at: at, shape: isScalar, text: n.GetToken().Value}
	case *ast.SequenceNode:
		out := &raw{at: at, shape: isList}
		for _, v := range n.Values {
			out.items = append(out.items, r.convert(v, at, depth+1))
		}
		return out
	case *ast.MappingNode:
		return r.mapping(n.Values, at, depth)
	case *ast.MappingValueNode:
		return r.mapping([]*ast.MappingValueNode{n}, at, depth)
	case *ast.AnchorNode, *ast.AliasNode:
		r.report(at, "anchors and aliases are not used here", "write the value out")
	case *ast.TagNode:
		r.report(at, "tags are not used here", "the type of a key is known")
	default:
		r.report(at, "not used here: "+strings.ToLower(n.Type().String()), "")
	}
	return &raw{at: at, shape: isRefused}
}

func (r *reader) mapping(values []*ast.MappingValueNode, at pos, depth int) *raw {
	out := &raw{at: at, shape: isMapping}
	seen := make(map[string]pos, len(values))
	for i, v := range values {
		keyAt := place(v.Key.GetToken())
		if i == 0 {
			out.at = keyAt // of a block mapping the token is the colon
		}
		key, ok := keyText(v.Key)
		if !ok {
			r.report(keyAt, "a key must be plain text", "")
			continue
		}
		if first, twice := seen[key]; twice {
			r.report(keyAt, fmt.Sprintf("key %q is here twice", key), fmt.Sprintf("first on line %d", first.line))
			continue
		}
		seen[key] = keyAt
		out.pairs = append(out.pairs, pair{key: key, at: keyAt, value: r.convert(v.Value, keyAt, depth+1)})
	}
	return out
}

func keyText(key ast.MapKeyNode) (string, bool) {
	if key.IsMergeKey() {
		return "", false
	}
	switch key := key.(type) {
	case *ast.StringNode:
		return key.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		return key.GetToken().Value, true
	}
	return "", false
}

func place(t *token.Token) pos {
	if t == nil || t.Position == nil {
		return pos{}
	}
	return pos{line: max(t.Position.Line, 1), column: max(t.Position.Column, 1)}
}

func firstInvalid(data []byte) (pos, bool) {
	at := pos{1, 1}
	for len(data) > 0 {
		c, n := utf8.DecodeRune(data)
		if c == utf8.RuneError && n == 1 {
			return at, true
		}
		if at.column++; c == '\n' {
			at = pos{at.line + 1, 1}
		}
		data = data[n:]
	}
	return pos{}, false
}
