package plugins

import (
	"bufio"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
)

// Of the memory that the machine or the container has, the limit leaves a
// quarter to what the runtime does not count: SQLite's pages, the kernel's
// socket buffers.
const memoryShare = 0.75

// LimitMemory sets the runtime's soft limit (reliability row 34) and returns it
// with where it comes from: the configuration, GOMEMLIMIT, the container's
// limit, the machine. 0: there is none to be found.
func LimitMemory(configured int64) (limit int64, from string) {
	limit, from = memoryLimit(configured, "/")
	if limit > 0 && from != "GOMEMLIMIT" {
		debug.SetMemoryLimit(limit)
	}
	return limit, from
}

func memoryLimit(configured int64, root string) (limit int64, from string) {
	if configured > 0 {
		return configured, "memory"
	}
	if now := debug.SetMemoryLimit(-1); now != math.MaxInt64 {
		return now, "GOMEMLIMIT"
	}
	machine := memTotal(filepath.Join(root, "proc/meminfo"))
	if group := cgroupLimit(root); group > 0 && (machine == 0 || group < machine) {
		return int64(float64(group) * memoryShare), "cgroup"
	}
	return int64(float64(machine) * memoryShare), "machine"
}

// cgroupLimit is the least limit of the process's cgroup and those above it; 0:
// none (cgroups(7): version 2 has memory.max, version 1 the memory controller).
func cgroupLimit(root string) (least int64) {
	b, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) != 3 {
			continue
		}
		base, file := "sys/fs/cgroup", "memory.max"
		if part[0] != "0" {
			if !strings.Contains(","+part[1]+",", ",memory,") {
				continue
			}
			base, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		}
		for dir := filepath.Clean("/" + part[2]); ; dir = filepath.Dir(dir) {
			b, _ := os.ReadFile(filepath.Join(root, base, dir, file))
			if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && n > 0 && (least == 0 || n < least) {
				least = n
			}
			if dir == "/" {
				break
			}
		}
	}
	return least
}

func memTotal(file string) int64 {
	f, err := os.Open(file)
	if err != nil {
		return 0
	}
	defer func() { _ = f.Close() }()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "MemTotal:"); ok {
			kb, _ := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kb << 10
		}
	}
	return 0
}
