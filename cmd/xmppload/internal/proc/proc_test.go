//go:build linux

package proc

import (
	"os"
	"os/exec"
	"testing"
)

func TestReadsItself(t *testing.T) {
	g := NewGroup(os.Getpid())
	before, err := g.Read()
	if err != nil {
		t.Fatal(err)
	}
	if before.RSS < 1<<20 {
		t.Errorf("%d bytes cannot be", before.RSS)
	}
	x := uint32(1)
	for range 1 << 26 {
		x = x*1664525 + 1013904223
	}
	after, err := g.Read()
	if err != nil || after.CPU <= before.CPU || x == 0 {
		t.Errorf("work took no time: %v, then %v, %v", before, after, err)
	}
}

// What a process's children use is its own, alive or ended.
func TestChildrenCount(t *testing.T) {
	sh := exec.Command("sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done")
	sh2 := exec.Command("sh", "-c", "echo up; read x")
	in, _ := sh2.StdinPipe()
	out, _ := sh2.StdoutPipe()
	if err := sh2.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = out.Read(make([]byte, 3))
	g := NewGroup(os.Getpid())
	before, err := g.Read()
	if err != nil {
		t.Fatal(err)
	}
	alone, err := one(os.Getpid())
	if err != nil || before.RSS <= alone.RSS {
		t.Errorf("the child's memory is missing: %d with it, %d without, %v", before.RSS, alone.RSS, err)
	}
	if err := sh.Run(); err != nil {
		t.Fatal(err)
	}
	after, err := g.Read()
	if used := sh.ProcessState.UserTime(); err != nil || after.CPU-before.CPU < used-2*tick {
		t.Errorf("%v, the child alone took %v, %v", after.CPU-before.CPU, used, err)
	}
	_ = in.Close()
	_ = sh2.Wait()
}

func TestGone(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if _, err := NewGroup(cmd.Process.Pid).Read(); err == nil {
		t.Error("a process that is gone has been read")
	}
}
