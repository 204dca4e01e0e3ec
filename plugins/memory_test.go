package plugins

import (
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"testing"
)

// The limit is the configuration's, else the container's, else the machine's.
func TestReliability34MemoryLimit(t *testing.T) {
	const meminfo = "MemTotal:        4096 kB\nMemFree: 1 kB\n"
	for _, c := range []struct {
		name       string
		configured int64
		files      map[string]string
		limit      int64
		from       string
	}{
		{"configured", 7, map[string]string{"proc/meminfo": meminfo}, 7, "memory"},
		{"machine", 0, map[string]string{"proc/meminfo": meminfo}, 3 << 20, "machine"},
		{"version 2", 0, map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/memory.max": "1048576\n"}, 768 << 10, "cgroup"},
		{"version 1", 0, map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "4:cpu:/\n5:hugetlb,memory:/x\n", "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "1048576\n"}, 768 << 10, "cgroup"},
		{"none", 0, map[string]string{"proc/meminfo": meminfo, "proc/self/cgroup": "5:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}, 3 << 20, "machine"},
		{"nothing known", 0, nil, 0, "machine"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("GOMEMLIMIT", "")
			root := t.TempDir()
			for name, text := range c.files {
				file := filepath.Join(root, name)
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if limit, from := memoryLimit(c.configured, root); limit != c.limit || from != c.from {
				t.Errorf("%d from %s", limit, from)
			}
		})
	}
}

// The runtime's goal is what is alive and the room, with many stacks and without.
func TestCollectionsLeaveNoMoreThanRoom(t *testing.T) {
	const room = 64 << 20
	goal := func() float64 {
		defer debug.SetGCPercent(debug.SetGCPercent(100))
		runtime.GC()
		debug.SetGCPercent(int(gcPercent(room, scanned())))
		s := []metrics.Sample{{Name: "/gc/heap/goal:bytes"}, {Name: "/gc/heap/live:bytes"}}
		metrics.Read(s)
		return float64(s[0].Value.Uint64()) - float64(s[1].Value.Uint64())
	}
	check := func(what string) {
		if got := goal(); got < room*0.9 || got > room*1.1 {
			t.Errorf("%s: %.0f MiB may be allocated, want %d", what, got/(1<<20), room>>20)
		}
	}
	check("a small heap")
	var held sync.WaitGroup
	release, ready := make(chan struct{}), make(chan struct{})
	for range 500 {
		held.Go(func() {
			deep(200, func() { ready <- struct{}{}; <-release })
		})
		<-ready
	}
	check("many stacks")
	close(release)
	held.Wait()
}

// deep calls f with n frames of 256 bytes on the stack.
func deep(n int, f func()) (sum byte) {
	var frame [256]byte
	if n == 0 {
		f()
		return 0
	}
	frame[n%len(frame)] = deep(n-1, f)
	for _, b := range frame {
		sum += b
	}
	return sum
}

func TestCollectionsLeaveRoom(t *testing.T) {
	for _, c := range []struct{ room, alive, want float64 }{
		{64 << 20, 8 << 20, 800},   // small: at 72 MiB
		{64 << 20, 1 << 20, 1625},  // smaller: at 65 MiB, the least that such a heap grows to
		{64 << 20, 64 << 20, 100},  // from here on as the runtime does it
		{64 << 20, 512 << 20, 100}, //
		{8 << 20, 16 << 20, 100},   // a small limit
		{64 << 20, 0, 1600},        // nothing known yet
	} {
		if got := gcPercent(c.room, c.alive); got != c.want {
			t.Errorf("room for %.0f on top of %.0f: GOGC %.0f, want %.0f", c.room, c.alive, got, c.want)
		}
	}
}
