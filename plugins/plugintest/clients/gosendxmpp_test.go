package clients_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// goSendXMPP runs the command line client with a text on its standard input.
func goSendXMPP(t *testing.T, env []string, text string, args ...string) (output string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go-sendxmpp", args...)
	cmd.Env = env
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// One message to somebody who is online, over STARTTLS and over direct TLS.
// The certificate is checked as any other once, and not at all once.
func TestGoSendXMPP(t *testing.T) {
	need(t, programs("go-sendxmpp"))
	s := start(t, "alice", "bob")
	bob := s.newPeer(t, "bob@localhost")
	for name, c := range map[string]struct {
		door string
		env  string
		args []string
	}{
		"starttls": {door: "c2s", env: "SSL_CERT_FILE=" + s.certificate},
		"direct":   {door: "c2s-tls", env: "SSL_CERT_FILE=" + s.certificate, args: []string{"--tls"}},
		"blindly":  {door: "c2s", args: []string{"--no-tls-verify"}},
	} {
		t.Run(name, func(t *testing.T) {
			args := append(c.args, "--username", "alice@localhost", "--password", password, "--jserver", s.Door(c.door), "bob@localhost")
			text := "by the command line, " + name
			if out, err := goSendXMPP(t, append(home(t), c.env), text, args...); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if m := bob.hears(t, text); m.From.Bare().String() != "alice@localhost" {
				t.Errorf("it comes from %s", m.From)
			}
		})
	}
}

// A certificate that nobody vouches for is refused, and so is a wrong password.
func TestGoSendXMPPRefused(t *testing.T) {
	need(t, programs("go-sendxmpp"))
	s := start(t, "alice", "bob")
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"certificate": {[]string{"--password", password}, "certificate"},
		"password":    {[]string{"--password", "a guess", "--no-tls-verify"}, "not-authorized"},
	} {
		t.Run(name, func(t *testing.T) {
			args := append(c.args, "--username", "alice@localhost", "--jserver", s.Door("c2s"), "bob@localhost")
			out, err := goSendXMPP(t, home(t), "never to be read", args...)
			if err == nil || !strings.Contains(out, c.want) {
				t.Errorf("no refusal because of the %s: %v: %s", name, err, out)
			}
		})
	}
}

// A file: uploaded over HTTPS, whose certificate is checked, and fetched by whoever
// is told where it is (XEP-0363).
func TestGoSendXMPPSendsAFile(t *testing.T) {
	need(t, programs("go-sendxmpp"))
	s := start(t, "alice", "bob")
	bob := s.newPeer(t, "bob@localhost")
	file := filepath.Join(t.TempDir(), "très cool.txt")
	content := strings.Repeat("some text ", 10_000)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"--username", "alice@localhost", "--password", password, "--jserver", s.Door("c2s"), "--http-upload", file, "bob@localhost"}
	if out, err := goSendXMPP(t, append(home(t), "SSL_CERT_FILE="+s.certificate), "", args...); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	m := await(t, "the address of a file", bob.messages, func(m said) bool { return strings.HasPrefix(m.Body, "https://localhost:") })
	if got := s.fetch(t, m.Body); got != content {
		t.Errorf("%d bytes at %s", len(got), m.Body)
	}
}
