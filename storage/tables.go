package storage

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf8"
)

// columnKind is what a column holds: the types that features use on both
// databases.
type columnKind uint8

const (
	integerColumn columnKind = iota + 1
	textColumn
	blobColumn
	booleanColumn
)

// columnKinds are the types' names on both databases.
func columnKinds() map[string]columnKind {
	return map[string]columnKind{
		"bigint": integerColumn, "integer": integerColumn,
		"text": textColumn,
		"blob": blobColumn, "bytea": blobColumn,
		"boolean": booleanColumn,
	}
}

type column struct {
	name string
	kind columnKind
}

// table is one that a feature made. Its columns are in the order of their
// names, which is the same on both databases.
type table struct {
	name    string
	columns []column
}

// Tables of the migrations themselves are no data.
const (
	sqliteTables = `SELECT m.name, c.name, c.type FROM sqlite_master m JOIN pragma_table_info(m.name) c
		WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite\_%' ESCAPE '\' AND m.name NOT LIKE 'goose\_%' ESCAPE '\'
		ORDER BY m.name, c.name`
	postgresTables = `SELECT t.relname::text COLLATE "C", a.attname::text COLLATE "C", format_type(a.atttypid, NULL)
		FROM pg_class t JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
		WHERE t.relnamespace = current_schema()::regnamespace AND t.relkind IN ('r', 'p') AND NOT t.relispartition AND t.relname NOT LIKE 'goose\_%'
		ORDER BY 1, 2`
)

func tablesOf(ctx context.Context, q Querier, d Dialect) ([]table, error) {
	text := sqliteTables
	if d == Postgres {
		text = postgresTables
	}
	rows, err := q.Query(ctx, text)
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	defer rows.Close()
	kinds := columnKinds()
	var out []table
	for rows.Next() {
		var of, name, typ string
		if err := rows.Scan(&of, &name, &typ); err != nil {
			return nil, fmt.Errorf("list tables: %w", err)
		}
		kind, ok := kinds[strings.ToLower(typ)]
		if !ok {
			return nil, fmt.Errorf("%s.%s is of type %q, which is not one that both databases have", of, name, typ)
		}
		if len(out) == 0 || out[len(out)-1].name != of {
			out = append(out, table{name: of})
		}
		last := &out[len(out)-1]
		last.columns = append(last.columns, column{name, kind})
	}
	return out, rows.Err()
}

func (t table) names() []string {
	out := make([]string, len(t.columns))
	for i, c := range t.columns {
		out[i] = c.name
	}
	return out
}

// all reads every row.
func (t table) all() string {
	cols := t.names()
	for i, c := range cols {
		cols[i] = quoted(c)
	}
	return "SELECT " + strings.Join(cols, ", ") + " FROM " + quoted(t.name)
}

func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// typed brings a driver's values to int64, string, []byte and bool; nil stays.
func (t table) typed(values []any) error {
	for i, c := range t.columns {
		v, err := c.typed(values[i])
		if err != nil {
			return fmt.Errorf("%s.%s: %w", t.name, c.name, err)
		}
		values[i] = v
	}
	return nil
}

// typed is lenient as SQLite is: it stores what it is given.
func (c column) typed(v any) (any, error) {
	switch v := v.(type) {
	case nil:
		return nil, nil
	case int64:
		switch {
		case c.kind == integerColumn:
			return v, nil
		case c.kind == booleanColumn && (v == 0 || v == 1):
			return v == 1, nil
		}
	case bool:
		if c.kind == booleanColumn {
			return v, nil
		}
	case string:
		return c.bytes([]byte(v))
	case []byte:
		return c.bytes(v)
	}
	return nil, fmt.Errorf("holds a value that is not of its type (%T)", v)
}

func (c column) bytes(v []byte) (any, error) {
	switch c.kind {
	case blobColumn:
		if v == nil { // an empty one, not NULL
			v = []byte{}
		}
		return v, nil
	case textColumn:
		text := string(v)
		// https://www.postgresql.org/docs/current/datatype-character.html
		if !utf8.ValidString(text) {
			return nil, fmt.Errorf("holds text that Postgres does not take: %d bytes that are not UTF-8", len(text))
		}
		if at := strings.IndexByte(text, 0); at >= 0 {
			return nil, fmt.Errorf("holds text that Postgres does not take: %d bytes, and byte %d is zero", len(text), at+1)
		}
		return text, nil
	}
	return nil, fmt.Errorf("holds a value that is not of its type (%T)", v)
}

// digest is a checksum of rows in any order: the sum of the rows' SHA-256, as
// four numbers, so that a row that is there twice counts twice.
type digest struct {
	rows int64
	sum  [4]uint64
	buf  []byte
}

// add takes a row's typed values.
func (d *digest) add(values []any) {
	b := d.buf[:0]
	part := func(tag byte, text []byte) {
		b = append(b, tag)
		b = binary.BigEndian.AppendUint64(b, uint64(len(text)))
		b = append(b, text...)
	}
	for _, v := range values {
		switch v := v.(type) {
		case int64:
			part('i', binary.BigEndian.AppendUint64(nil, uint64(v)))
		case string:
			part('t', []byte(v))
		case []byte:
			part('b', v)
		case bool:
			part('o', []byte{map[bool]byte{true: 1}[v]})
		default:
			part('n', nil)
		}
	}
	d.buf = b
	h := sha256.Sum256(b)
	for i := range d.sum {
		d.sum[i] += binary.BigEndian.Uint64(h[8*i:])
	}
	d.rows++
}

func (d *digest) equal(o *digest) bool { return d.rows == o.rows && d.sum == o.sum }

// text shows the checksum.
func (d *digest) text() string {
	var b []byte
	for _, n := range d.sum {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return fmt.Sprintf("%x", b[:16])
}
