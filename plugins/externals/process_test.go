package externals

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// A component's process ends with the server's, whatever ends that.
func TestComponentsEndWithTheServer(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells a process that its parent has ended")
	}
	const role = "PARLEY_TEST_EXTERNALS_SERVER"
	if os.Getenv(role) != "" {
		if _, err := launch(t.TempDir(), &Manifest{Command: "sh", Args: []string{"-c", "echo here; exec sleep 1000"}}, os.Environ(), os.Stdout); err != nil {
			t.Fatal(err)
		}
		select {} // until it is killed
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	server := exec.Command(os.Args[0], "-test.run", "^TestComponentsEndWithTheServer$")
	server.Env, server.Stdout, server.Stderr = append(os.Environ(), role+"=yes"), w, os.Stderr
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	out := bufio.NewReader(r)
	if line, err := out.ReadString('\n'); err != nil || line != "here\n" {
		t.Fatalf("the component says %q: %v", line, err)
	}
	if err := server.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = server.Wait()
	// The component has the pipe, too: its end is the last one's.
	if _, err := io.Copy(io.Discard, out); err != nil {
		t.Error(err)
	}
}

// What a component writes is kept in two files of bounded size, and read from both.
func TestLogsAreBounded(t *testing.T) {
	l := &logfile{path: filepath.Join(t.TempDir(), "log"), max: 100}
	defer l.close()
	if got, err := l.tail(5); err != nil || len(got) != 0 {
		t.Errorf("of nothing: %q, %v", got, err)
	}
	for _, c := range "abcdefghij" {
		if _, err := l.Write([]byte(strings.Repeat(string(c), 29) + "\n")); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"log", "log.1"} {
		if raw, err := os.ReadFile(filepath.Join(filepath.Dir(l.path), name)); err != nil || len(raw) > 100 || len(raw) == 0 {
			t.Errorf("%s has %d bytes: %v", name, len(raw), err)
		}
	}
	got, err := l.tail(3)
	if lines := strings.Split(strings.TrimSpace(string(got)), "\n"); err != nil || len(lines) != 3 || lines[0][0] != 'h' || lines[2][0] != 'j' {
		t.Errorf("the last three lines are %q: %v", got, err)
	}
	if _, err := l.Write([]byte(strings.Repeat("k", 1000))); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(l.path); err != nil || info.Size() > 100 {
		t.Errorf("a long line: %v, %v", info, err)
	}
}
