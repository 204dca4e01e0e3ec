package plugins

import (
	"bufio"
	"context"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"time"
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

// Between two collections at least so much may be allocated: a small heap would
// be collected many times a second under load (at 100,000 messages a second a
// fifth of the time). Of a limit it is no more than the given share.
const (
	leastGarbage  = 64 << 20
	garbageShare  = 0.125
	paceEvery     = 5 * time.Second
	paceThreshold = 1.2 // what a change must make of a difference
)

// PaceCollections keeps the runtime's GOGC at what makes the next collection
// due when what is alive has doubled, or has grown by 64 MiB if that is later.
// It does nothing when GOGC is set, and returns when ctx is done.
func PaceCollections(ctx context.Context, limit int64) {
	if os.Getenv("GOGC") != "" {
		return
	}
	room := float64(leastGarbage)
	if limit > 0 {
		room = min(room, garbageShare*float64(limit))
	}
	tick := time.NewTicker(paceEvery)
	defer tick.Stop()
	now := 100.0
	for {
		if next := gcPercent(room, scanned()); next > now*paceThreshold || next < now/paceThreshold {
			debug.SetGCPercent(int(next))
			now = next
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// leastHeap is what GOGC=100 lets a heap grow to however little is alive; another
// GOGC changes it in proportion (runtime: heapMinimum).
const leastHeap = 4 << 20

// gcPercent is the GOGC that lets room be allocated on top of what is alive,
// in bytes; never less than the runtime's own 100.
func gcPercent(room, alive float64) float64 {
	most := 100 * (room + alive) / leastHeap
	if alive > 0 {
		most = min(most, 100*room/alive)
	}
	return max(most, 100)
}

// scanned is what GOGC is a share of: what lived through the last collection on
// the heap, in stacks and in variables.
func scanned() (sum float64) {
	s := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}}
	metrics.Read(s)
	for _, m := range s {
		sum += float64(m.Value.Uint64())
	}
	return sum
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
