package ledger_test

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The part of the document that is ours.
const (
	tableBegin = "<!-- ledger: written by make soak -->\n"
	tableEnd   = "<!-- ledger: end -->\n"
)

// introduction of the document, when there is none yet.
const introduction = `# Reliability

## What is acknowledged is not lost

Clients with stream management (XEP-0198) write down what they sent and what was acknowledged, recipients what came, while
something breaks. Afterwards everybody fetches what waits and reads the archive, and the books are compared:
` + "`plugins/plugintest/ledger`. `make test` runs three rounds of each fault; `make soak` runs twenty and writes this table." + `

- **lost**: acknowledged and not in both archives, or never received
- **duplicated**: came to a device more than once, under the same stanza-id; another stanza-id fails the test
- **reordered**: not in the order it was sent, for each sender and recipient, in an archive or on a device
- **late**: got by a device after newer messages of the same sender, though archives are in order. Fails the test, but with several nodes while
  they do not hear each other or cannot ask the database: what waits there is overtaken by what its sender, who has moved to another node, says
- **ghosts**: sessions that a watcher at one of the nodes, or one who has just come, saw as online 15 s after the fault, and that were not. Guests
  without stream management leave, come and stay while it lasts. Who is online and not seen fails the test as well
- **room**: what devices that were in a room did not hear of it, or not in its archive's order
- **refused**: answered with ` + "`<resource-constraint/>`" + `, for now
- **recovery**: until the next message is acknowledged; after a kill from the kill on, else from the moment the fault is over. But for
  kills the server is never started again; of several nodes one that ends by itself, because the others may take it for dead, is. "node
  killed" counts until the dead node's sessions are gone everywhere and it is started again, too.

"link down" takes everything from one node, its clients too, until it has ended by itself; "for a moment" is up to a second. Such nodes run in network
namespaces, which need root: without it these rows are skipped, and the test says so.

`

// table writes what was found into the file that is asked for.
func (l *long) table(t *testing.T) {
	t.Helper()
	name := os.Getenv("PARLEY_TEST_LEDGER_TABLE")
	if name == "" || len(l.rows) == 0 {
		return
	}
	old, err := os.ReadFile(name)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(l.into(string(old))), 0o644); err != nil {
		t.Fatal(err)
	}
}

// into replaces our part of a document.
func (l *long) into(doc string) string {
	if doc == "" {
		doc = introduction
	}
	head, rest, ours := strings.Cut(doc, tableBegin)
	if ours {
		_, rest, _ = strings.Cut(rest, tableEnd)
	} else {
		head = strings.TrimRight(head, "\n") + "\n\n"
	}
	return head + tableBegin + l.String() + tableEnd + rest
}

// String is the table.
func (l *long) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d processors, %s, seed %d\n\n", time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), runtime.Version(), l.seed)
	b.WriteString("| Database | Fault | Rounds | Sent | Acked | Refused | Lost | Duplicated | Reordered | Late | Room | Ghosts | Recovery ms, median / worst |\n")
	b.WriteString("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, o := range l.rows {
		ghosts := "–" // nobody looks
		if len(o.right) > 0 {
			ghosts = strconv.Itoa(len(o.ghosts))
		}
		fmt.Fprintf(&b, "| %s | %s | %d | %d | %d | %d | %d | %d | %d | %d | %d | %s | %d / %d |\n", o.database, o.fault, o.rounds, o.sent, o.acked, o.refused,
			len(o.lost), o.duplicates, len(o.reordered), o.late, len(o.missed)+len(o.astray), ghosts, median(o.recovery).Milliseconds(), worst(o.recovery).Milliseconds())
	}
	return b.String()
}

func TestTableReplacesItsPartAlone(t *testing.T) {
	l := &long{rows: []*outcome{{database: "SQLite", fault: serverKilled, rounds: 1, recovery: []time.Duration{time.Second}}}}
	first := l.into("")
	if !strings.HasPrefix(first, "# Reliability") || !strings.Contains(first, "| 1000 / 1000 |") {
		t.Errorf("%s", first)
	}
	l.rows = nil
	again := l.into("before\n\n" + strings.TrimPrefix(first, introduction) + "\nafter\n")
	if !strings.HasPrefix(again, "before\n\n"+tableBegin) || !strings.HasSuffix(again, tableEnd+"\nafter\n") || strings.Contains(again, "1000") {
		t.Errorf("%s", again)
	}
}
