//go:build linux

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"parley/cmd/xmppload/peers"
)

// stage is where servers run that we start ourselves.
type stage struct {
	parley, root string
	where        peers.Where
	procs        int
	keep         bool

	log  io.Writer
	seen map[string]string // versions
	bad  []string          // what was lost, duplicated or reordered
}

func (s *stage) flags(f *pflag.FlagSet) {
	f.StringVar(&s.parley, "parley", "bin/parley", "the binary to measure")
	f.StringVar(&s.root, "root", ".", "the repository")
	f.StringVar(&s.where.CPU, "server-cpu", "0", "core that servers are pinned to; empty: none")
	f.StringVar(&s.where.Nice, "nice", "", "niceness of the servers")
	f.IntVar(&s.procs, "procs", 1, "GOMAXPROCS of the generator")
	f.BoolVar(&s.keep, "keep", false, "keep the servers' directories")
}

// run sets the stage for f, and clears it away.
func (s *stage) run(log io.Writer, f func() error) (err error) {
	runtime.GOMAXPROCS(s.procs)
	raiseFiles()
	s.log, s.seen = log, map[string]string{}
	if s.where.Dir, err = os.MkdirTemp("", "xmppload-"); err != nil {
		return err
	}
	if !s.keep {
		defer func() { err = errors.Join(err, os.RemoveAll(s.where.Dir)) }()
	}
	if err := os.Chmod(s.where.Dir, 0o755); err != nil { // Postgres runs as somebody else
		return err
	}
	if s.where.Root, err = filepath.Abs(s.root); err != nil {
		return err
	}
	if s.parley, err = filepath.Abs(s.parley); err != nil {
		return err
	}
	return f()
}

// versions are those of what ran.
func (s *stage) versions() string {
	var out []string
	for name, v := range s.seen {
		if v != "" {
			out = append(out, name+": "+v)
		}
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}

// machine says what this ran on.
func machine() string {
	model := runtime.GOARCH
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, after, ok := strings.Cut(string(b), "model name\t: "); ok {
			model, _, _ = strings.Cut(after, "\n")
		}
	}
	load := ""
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		load = ", load " + strings.Join(strings.Fields(string(b))[:3], " ") + " at the end"
	}
	cores := runtime.NumCPU()
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil { // NumCPU knows only those we are pinned to
		cores = max(cores, strings.Count(string(b), "\nprocessor\t")+1)
	}
	kernel := "Linux"
	if out, err := exec.Command("uname", "-sr").Output(); err == nil {
		kernel = strings.TrimSpace(string(out))
	}
	return fmt.Sprintf("%s, %d cores, %s, %s%s", model, cores, kernel, runtime.Version(), load)
}
