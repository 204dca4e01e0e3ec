package clients_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
)

// python is Debian's: the one that has python3-slixmpp.
const python = "/usr/bin/python3"

func slixmppThere() error {
	if out, err := exec.Command(python, "-c", "import slixmpp").CombinedOutput(); err != nil {
		return fmt.Errorf("python3-slixmpp: %w: %s", err, out)
	}
	return nil
}

// TestSlixmpp runs testdata/slixmpp_talk.py; each of its steps is a subtest.
func TestSlixmpp(t *testing.T) {
	need(t, slixmppThere)
	const script = "testdata/slixmpp_talk.py"
	listed, err := exec.Command(python, "-B", script, "--steps").Output()
	steps := strings.Fields(string(listed))
	if err != nil || len(steps) == 0 {
		t.Fatalf("%s has no steps: %v", script, err)
	}
	s := start(t, "alice", "bob", "carol")
	host, port := s.door(t, "c2s")
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, python, "-B", script, host, port, s.Domain(), s.certificate, password)
	cmd.Env = home(t)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	results := map[string]string{}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		verdict, rest, _ := strings.Cut(lines.Text(), " ")
		name, reason, _ := strings.Cut(rest, ":")
		results[name] = verdict + reason
	}
	ended := cmd.Wait()
	for _, step := range steps {
		t.Run(step, func(t *testing.T) {
			switch got := results[step]; {
			case got == "":
				t.Error("not reached")
			case got != "pass":
				t.Error(strings.ReplaceAll(got, `\n`, "\n"))
			}
		})
	}
	if ended != nil && !t.Failed() {
		t.Errorf("%s: %v", script, ended)
	}
	if t.Failed() {
		t.Logf("standard error:\n%s", complaints.String())
	}
}
