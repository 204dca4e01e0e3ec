package externals

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"testing"
)

// A component's process ends with the server's, whatever ends that.
func TestComponentsEndWithTheServer(t *testing.T) {
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
