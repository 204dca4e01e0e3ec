package storage

import "testing"

func TestSQLiteText(t *testing.T) {
	d := &sqliteDB{}
	for in, want := range map[string]string{
		`SELECT a FROM t WHERE b = $1 AND c > $12`: `SELECT a FROM t WHERE b = ?1 AND c > ?12`,
		`SELECT a FROM t LIMIT $3`:                 `SELECT a FROM t LIMIT ?3+0`, // compiled once
		`SELECT a FROM t limit $1 OFFSET $2`:       `SELECT a FROM t limit ?1+0 OFFSET ?2+0`,
		`SELECT a FROM t LIMIT 5`:                  `SELECT a FROM t LIMIT 5`,
	} {
		if got := d.text(in); got != want {
			t.Errorf("%s\nis    %s\nwants %s", in, got, want)
		}
	}
}
