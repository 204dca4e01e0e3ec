package ledger_test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// dumps is where a run leaves what helps to find causes; "": nowhere.
func dumps() string { return os.Getenv("PARLEY_TEST_LEDGER_LOGS") }

// dump writes a file of the test's.
func dump(t *testing.T, name, text string) {
	file := filepath.Join(dumps(), strings.ReplaceAll(t.Name(), "/", "-")+"-"+name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Error(err)
	}
}

// trace is what a client says and hears, in a file of the run's; nil: nobody wants it.
type trace struct{ *os.File }

func newTrace(t *testing.T, who string) trace {
	if dumps() == "" {
		return trace{}
	}
	name := strings.ReplaceAll(t.Name()+"-"+who+".trace", "/", "-")
	f, err := os.Create(filepath.Join(dumps(), name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return trace{f}
}

func (tr trace) note(way, text string) {
	if tr.File != nil {
		fmt.Fprintf(tr, "%s %s %s\n", time.Now().UTC().Format("15:04:05.000000"), way, text)
	}
}

// dumpArchive writes the archives in their order: owner, when, by the node of which
// number, and what.
func dumpArchive(t *testing.T, u *url.URL) {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, u.String())
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = conn.Close(ctx) }()
	rows, err := conn.Query(ctx, `SELECT o.jid, to_char(to_timestamp(a.id / 1e6) AT TIME ZONE 'UTC', 'HH24:MI:SS.US'), a.id % 32, convert_from(a.stanza, 'UTF8') FROM archive a JOIN archive_owner o ON o.id = a.owner ORDER BY o.jid, a.id`)
	if err != nil {
		t.Error(err)
		return
	}
	var b strings.Builder
	var owner, at, what string
	var node int64
	_, err = pgx.ForEachRow(rows, []any{&owner, &at, &node, &what}, func() error {
		fmt.Fprintf(&b, "%s\t%s\t%d\t%s\n", owner, at, node, what)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	dump(t, "archive.tsv", b.String())
}
