package script

import (
	"fmt"
	"strings"
)

// longest is what a transcript shows of one text.
const longest = 2000

// transcriptLine is a script line, or (line 0) what was sent or received because of it.
type transcriptLine struct {
	line int
	who  string
	dir  string
	text string
}

func (x *run) begin(st step) {
	x.lines = append(x.lines, transcriptLine{line: st.line, text: st.text})
}

func (x *run) note(who, dir, text string) {
	x.lines = append(x.lines, transcriptLine{who: who, dir: dir, text: text})
}

// result turns an error into what Run returns.
func (x *run) result(st step, err error) Result {
	reason, isSkip := skipped(err)
	if isSkip {
		return Result{Outcome: Skipped, Reason: reason}
	}
	var b strings.Builder
	x.transcript(&b, st.line)
	fmt.Fprintf(&b, "\n%s.txtar:%d: %s\n", x.script.Name, st.line, cut(st.text))
	if f, ok := err.(*failure); ok {
		fmt.Fprintf(&b, "  expected: %s\n  received: %s\n", cut(f.expected), cut(f.received))
		if f.nearest != "" {
			fmt.Fprintf(&b, "  nearest:  %s\n", cut(f.nearest))
		}
	} else {
		fmt.Fprintf(&b, "  error:    %s\n", cut(err.Error()))
	}
	for _, n := range x.order {
		for _, it := range x.clients[n].unread() {
			fmt.Fprintf(&b, "  unread:   %s ← %s\n", n, cut(it.String()))
		}
	}
	return Result{Outcome: Failed, Reason: fmt.Sprintf("line %d: %s", st.line, cut(err.Error())), Report: b.String()}
}

// transcript lists the script's lines, each with what it sent and took; the failing one is marked.
func (x *run) transcript(b *strings.Builder, failing int) {
	for _, l := range x.lines {
		switch {
		case l.line == 0:
			fmt.Fprintf(b, "          %s %s %s\n", l.who, l.dir, cut(l.text))
		case l.line == failing:
			fmt.Fprintf(b, "> %4d  %s\n", l.line, cut(l.text))
		default:
			fmt.Fprintf(b, "  %4d  %s\n", l.line, cut(l.text))
		}
	}
}

func cut(s string) string {
	if len(s) > longest {
		return fmt.Sprintf("%s… (%d bytes)", s[:longest], len(s))
	}
	return s
}
