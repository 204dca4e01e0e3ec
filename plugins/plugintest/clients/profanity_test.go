package clients_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// terminal is a program in a tmux of its own.
type terminal struct {
	t      *testing.T
	env    []string
	socket string
}

func newTerminal(t *testing.T, command ...string) *terminal {
	t.Helper()
	term := &terminal{t: t, env: home(t), socket: filepath.Join(t.TempDir(), "tmux")}
	term.tmux(append([]string{"new-session", "-d", "-x", "120", "-y", "40"}, command...)...)
	t.Cleanup(func() { _ = term.command(context.Background(), "kill-server").Run() }) // the one at this socket
	return term
}

func (m *terminal) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "tmux", append([]string{"-S", m.socket, "-f", "/dev/null"}, args...)...)
	cmd.Env = m.env
	return cmd
}

func (m *terminal) tmux(args ...string) string {
	m.t.Helper()
	out, err := m.command(m.t.Context(), args...).CombinedOutput()
	if err != nil {
		m.t.Fatalf("tmux %s: %v: %s", args[0], err, out)
	}
	return string(out)
}

// types enters a line.
func (m *terminal) types(line string) {
	m.t.Helper()
	m.tmux("send-keys", "-l", line)
	m.tmux("send-keys", "Enter")
}

// shows waits until a text is on the screen.
func (m *terminal) shows(text string) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), patience)
	defer cancel()
	var screen string
	err := eventually(ctx, text, func() (bool, error) {
		out, err := m.command(ctx, "capture-pane", "-p", "-J").CombinedOutput()
		if ctx.Err() != nil {
			return false, nil // it is the deadline that ended it
		}
		screen = string(out)
		return strings.Contains(screen, text), err
	})
	if err != nil {
		m.t.Fatalf("%v; the screen is\n%s", err, screen)
	}
}

// Profanity in a terminal, as somebody sits in front of it.
func TestProfanity(t *testing.T) {
	need(t, programs("profanity", "tmux"))
	s := start(t, "alice", "bob")
	bob := s.newPeer(t, "bob@localhost")
	host, port := s.door(t, "c2s")

	screen := newTerminal(t, "profanity")
	screen.shows("Profanity")
	connect := func() {
		t.Helper()
		screen.types("/connect alice@localhost server " + host + " port " + port + " tls trust")
		screen.shows("Enter password:")
		screen.types(password)
		screen.shows("logged in successfully")
	}
	connect()

	screen.types("/msg bob@localhost hello from the terminal")
	m := bob.hears(t, "hello from the terminal")
	if m.From.Bare().String() != "alice@localhost" {
		t.Errorf("it comes from %s", m.From)
	}
	bob.say(t, m.From.String(), "and to the terminal")
	screen.shows("and to the terminal")

	screen.types("/roster add bob@localhost Bobby")
	screen.types("/sub request bob@localhost")
	bob.sees(t, "subscribe", "alice@localhost")
	bob.tell(t, "subscribed", "alice@localhost")
	screen.types("/win 1")
	screen.types("/who")
	screen.shows("Bobby")

	screen.types("/disconnect")
	screen.shows("logged out successfully")
	bob.say(t, "alice@localhost", "while you were away")
	screen.types("/clear")
	connect()
	screen.types("/msg bob@localhost back again")
	bob.hears(t, "back again")
	screen.shows("while you were away") // in the window that /msg opened
	screen.types("/quit")
}
