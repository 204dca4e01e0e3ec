package roster

import (
	"regexp"
	"strings"
	"testing"
)

// rfcTables are Tables 2 to 9 of RFC 6121 §A.2 and §A.3, as they are printed
// there, each under its direction and action.
const rfcTables = `
outbound subscribe: Table 2
   |  "None"                  |  MUST [1] |  "None + Pending Out"     |
   |  "None + Pending Out"    |  MUST     |  no state change          |
   |  "None + Pending In"     |  MUST [1] |  "None + Pending Out+In"  |
   |  "None + Pending Out+In" |  MUST     |  no state change          |
   |  "To"                    |  MUST     |  no state change          |
   |  "To + Pending In"       |  MUST     |  no state change          |
   |  "From"                  |  MUST [1] |  "From + Pending Out"     |
   |  "From + Pending Out"    |  MUST     |  no state change          |
   |  "Both"                  |  MUST     |  no state change          |
outbound unsubscribe: Table 3
   |  "None"                  |  MUST    |  no state change          |
   |  "None + Pending Out"    |  MUST    |  "None"                   |
   |  "None + Pending In"     |  MUST    |  no state change          |
   |  "None + Pending Out+In" |  MUST    |  "None + Pending In"      |
   |  "To"                    |  MUST    |  "None"                   |
   |  "To + Pending In"       |  MUST    |  "None + Pending In"      |
   |  "From"                  |  MUST    |  no state change          |
   |  "From + Pending Out"    |  MUST    |  "From"                   |
   |  "Both"                  |  MUST    |  "From"                   |
outbound subscribed: Table 4
   |  "None"                  |  M.N.    |  pre-approval [1]         |
   |  "None + Pending Out"    |  M.N.    |  pre-approval [1]         |
   |  "None + Pending In"     |  MUST    |  "From"                   |
   |  "None + Pending Out+In" |  MUST    |  "From + Pending Out"     |
   |  "To"                    |  M.N.    |  pre-approval [1]         |
   |  "To + Pending In"       |  MUST    |  "Both"                   |
   |  "From"                  |  M.N.    |  no state change          |
   |  "From + Pending Out"    |  M.N.    |  no state change          |
   |  "Both"                  |  M.N.    |  no state change          |
outbound unsubscribed: Table 5
   |  "None"                  |  S.N.    |  no state change [1]      |
   |  "None + Pending Out"    |  S.N.    |  no state change [1]      |
   |  "None + Pending In"     |  MUST    |  "None"                   |
   |  "None + Pending Out+In" |  MUST    |  "None + Pending Out"     |
   |  "To"                    |  S.N.    |  no state change [1]      |
   |  "To + Pending In"       |  MUST    |  "To"                     |
   |  "From"                  |  MUST    |  "None"                   |
   |  "From + Pending Out"    |  MUST    |  "None + Pending Out"     |
   |  "Both"                  |  MUST    |  "To"                     |
inbound subscribe: Table 6
   |  "None"                  |  MUST [1]  |  "None + Pending In"     |
   |  "None + Pending Out"    |  MUST      |  "None + Pending Out+In" |
   |  "None + Pending In"     |  S.N.      |  no state change         |
   |  "None + Pending Out+In" |  S.N.      |  no state change         |
   |  "To"                    |  MUST      |  "To + Pending In"       |
   |  "To + Pending In"       |  S.N.      |  no state change         |
   |  "From"                  |  S.N. [2]  |  no state change         |
   |  "From + Pending Out"    |  S.N. [2]  |  no state change         |
   |  "Both"                  |  S.N. [2]  |  no state change         |
inbound unsubscribe: Table 7
   |  "None"                  |  S.N.      |  no state change         |
   |  "None + Pending Out"    |  S.N.      |  no state change         |
   |  "None + Pending In"     |  MUST [1]  |  "None"                  |
   |  "None + Pending Out+In" |  MUST [1]  |  "None + Pending Out"    |
   |  "To"                    |  S.N.      |  no state change         |
   |  "To + Pending In"       |  MUST [1]  |  "To"                    |
   |  "From"                  |  MUST [1]  |  "None"                  |
   |  "From + Pending Out"    |  MUST [1]  |  "None + Pending Out"    |
   |  "Both"                  |  MUST [1]  |  "To"                    |
inbound subscribed: Table 8
   |  "None"                  |  S.N.      |  no state change         |
   |  "None + Pending Out"    |  MUST      |  "To"                    |
   |  "None + Pending In"     |  S.N.      |  no state change         |
   |  "None + Pending Out+In" |  MUST      |  "To + Pending In"       |
   |  "To"                    |  S.N.      |  no state change         |
   |  "To + Pending In"       |  S.N.      |  no state change         |
   |  "From"                  |  S.N.      |  no state change         |
   |  "From + Pending Out"    |  MUST      |  "Both"                  |
   |  "Both"                  |  S.N.      |  no state change         |
inbound unsubscribed: Table 9
   |  "None"                  |  S.N.      |  no state change         |
   |  "None + Pending Out"    |  MUST      |  "None"                  |
   |  "None + Pending In"     |  S.N.      |  no state change         |
   |  "None + Pending Out+In" |  MUST      |  "None + Pending In"     |
   |  "To"                    |  MUST      |  "None"                  |
   |  "To + Pending In"       |  MUST      |  "None + Pending In"     |
   |  "From"                  |  S.N.      |  no state change         |
   |  "From + Pending Out"    |  MUST      |  "From"                  |
   |  "Both"                  |  MUST      |  "From"                  |
`

// footnotes are the notes of each table, by the number in brackets. Table 2's
// is about the roster's 'ask' attribute, which is the state itself. Table 6's
// [1] holds in every state in which a pre-approval can be made (§3.4.2).
var footnotes = map[string]map[string]Note{
	"Table 2": {},
	"Table 4": {"[1]": PreApprove},
	"Table 5": {"[1]": CancelApproval},
	"Table 6": {"[1]": IfApproved, "[2]": ReplySubscribed},
	"Table 7": {"[1]": ReplyUnsubscribed},
}

var rfcRow = regexp.MustCompile(`^\|\s+"([^"]+)"\s+\|\s+(MUST|M\.N\.|S\.N\.)\s*(\[\d\])?\s+\|\s+(?:"([^"]+)"|no state change|pre-approval)\s*(\[\d\])?\s+\|$`)

// RFC 6121 §A.2, §A.3: all nine states, four actions, two directions.
func TestRule48SubscriptionTables(t *testing.T) {
	states := map[string]State{}
	for s := range State(16) {
		if s.String() != "" {
			states[s.String()] = s
		}
	}
	if len(states) != 9 {
		t.Fatalf("%d states, RFC 6121 §A.1 has nine", len(states))
	}
	directions := map[string]Direction{"outbound": Outbound, "inbound": Inbound}
	var direction Direction
	var action Action
	var title string
	cells := 0
	for line := range strings.Lines(rfcTables) {
		line = strings.TrimSpace(line)
		if head, table, ok := strings.Cut(line, ": "); ok {
			d, a, _ := strings.Cut(head, " ")
			direction, title = directions[d], table
			action, ok = ActionOf(a)
			if !ok {
				t.Fatalf("%q is no action", a)
			}
			continue
		}
		if line == "" {
			continue
		}
		m := rfcRow.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("%s: cannot read %q", title, line)
		}
		cells++
		was := states[m[1]]
		want := Cell{Pass: m[2] == "MUST", New: was, Note: footnotes[title][m[3]+m[5]]}
		if m[4] != "" {
			want.New = states[m[4]]
		}
		if title == "Table 6" && want.Pass {
			want.Note = IfApproved
		}
		if got := Lookup(direction, action, was); got != want {
			t.Errorf("%s, %q: got %+v, want %+v", title, was, got, want)
		}
	}
	if cells != 72 {
		t.Errorf("%d cells, want 72", cells)
	}
}

// What is no state of RFC 6121 §A.1 must never be reached.
func TestRule48TablesAreClosed(t *testing.T) {
	for d := range table {
		for a := range table[d] {
			for s, c := range table[d][a] {
				if State(s).String() != "" && c.New.String() == "" {
					t.Errorf("direction %d, %s in %q leads to state %d", d, Action(a), State(s), c.New)
				}
			}
		}
	}
}
