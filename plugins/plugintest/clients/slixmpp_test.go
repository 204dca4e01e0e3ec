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

// TestSlixmpp lets people talk; each step of the script is a subtest.
func TestSlixmpp(t *testing.T) { runSlixmpp(t, "testdata/slixmpp_talk.py") }

// TestSlixmppFeeds lets them publish and follow (XEP-0060, XEP-0163).
func TestSlixmppFeeds(t *testing.T) { runSlixmpp(t, "testdata/slixmpp_feeds.py") }

// TestSlixmppFiles lets one send the other a file (XEP-0363).
func TestSlixmppFiles(t *testing.T) {
	need(t, func() error {
		if out, err := exec.Command(python, "-c", "import aiohttp").CombinedOutput(); err != nil {
			return fmt.Errorf("python3-aiohttp: %w: %s", err, out)
		}
		return nil
	})
	runSlixmpp(t, "testdata/slixmpp_files.py")
}

// TestSlixmppRooms lets them meet in a room (XEP-0045 and what rooms have beyond it).
func TestSlixmppRooms(t *testing.T) { runSlixmpp(t, "testdata/slixmpp_rooms.py") }

func runSlixmpp(t *testing.T, script string) {
	t.Helper()
	need(t, slixmppThere)
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
