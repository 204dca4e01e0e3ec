//go:build linux

// Package proc asks Linux what processes have used: their own accounting, from
// outside.
package proc

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// Group is some processes and everything they have started: a server, its port
// programs, its database.
type Group struct{ roots []int }

// NewGroup watches the processes with these ids.
func NewGroup(pids ...int) *Group { return &Group{roots: pids} }

// Usage is what a Group has used so far. CPU only grows while its processes live.
type Usage struct {
	CPU time.Duration // user and system
	RSS int64         // bytes; shared pages of a group count once per process, less those of Postgres' buffers
}

// Read asks now. A process that is gone is an error when it is a root.
func (g *Group) Read() (Usage, error) {
	var u Usage
	parents, err := children()
	if err != nil {
		return u, err
	}
	seen := map[int]bool{}
	for queue := append([]int(nil), g.roots...); len(queue) > 0; {
		pid := queue[0]
		queue = append(queue[1:], parents[pid]...)
		if seen[pid] {
			continue
		}
		seen[pid] = true
		p, err := one(pid)
		if err != nil {
			if isRoot(g.roots, pid) {
				return u, fmt.Errorf("process %d: %w", pid, err)
			}
			continue // ended meanwhile: its parent has its time
		}
		u.CPU += p.CPU
		u.RSS += p.RSS
	}
	return u, nil
}

func isRoot(roots []int, pid int) bool {
	for _, r := range roots {
		if r == pid {
			return true
		}
	}
	return false
}

// tick is the unit of times in /proc/PID/stat; Linux shows 100 a second to
// every program.
const tick = time.Second / 100

// one reads a process: its clock in nanoseconds where the kernel lets us, and
// its ended children's time from stat.
func one(pid int) (Usage, error) {
	f, err := stat(pid)
	if err != nil {
		return Usage{}, err
	}
	own, ok := clock(pid)
	if !ok {
		own = time.Duration(f.number(14)+f.number(15)) * tick // utime, stime
	}
	ended := time.Duration(f.number(16)+f.number(17)) * tick // cutime, cstime
	return Usage{CPU: own + ended, RSS: private(pid, f.number(24)*int64(os.Getpagesize()))}, nil
}

// private is a process's memory without what it shares by mmap or SysV, which
// a database's processes all show.
func private(pid int, rss int64) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return rss
	}
	_, after, ok := bytes.Cut(b, []byte("RssShmem:"))
	if fields := bytes.Fields(after); ok && len(fields) > 0 {
		if kb, err := strconv.ParseInt(string(fields[0]), 10, 64); err == nil {
			rss -= kb << 10
		}
	}
	return rss
}

// clock reads the CPU clock of another process (clock_getcpuclockid(3)).
func clock(pid int) (time.Duration, bool) {
	var ts syscall.Timespec
	const sched = 2 // CPUCLOCK_SCHED: the sum over its threads, ended ones too
	id := ^uintptr(pid)<<3 | sched
	_, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, uintptr(uint32(id)), uintptr(unsafe.Pointer(&ts)), 0)
	return time.Duration(ts.Nano()), errno == 0
}

// fields are those of /proc/PID/stat from the third on (proc(5)).
type fields []string

// number is a field by proc(5)'s count.
func (f fields) number(i int) int64 {
	if i -= 3; i < 0 || i >= len(f) {
		return 0
	}
	n, _ := strconv.ParseInt(f[i], 10, 64)
	return n
}

func stat(pid int) (fields, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	i := bytes.LastIndexByte(b, ')') // the name may hold anything
	if i < 0 {
		return nil, fmt.Errorf("process %d: unknown format", pid)
	}
	return strings.Fields(string(b[i+1:])), nil
}

// children are the processes by parent.
func children() (map[int][]int, error) {
	names, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	m := map[int][]int{}
	for _, name := range names {
		pid, _ := strconv.Atoi(filepath.Base(name))
		if f, err := stat(pid); err == nil {
			parent := int(f.number(4))
			m[parent] = append(m[parent], pid)
		}
	}
	return m, nil
}
