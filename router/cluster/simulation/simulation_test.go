//go:debug randseednop=0

package simulation

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// What picks the seeds, from outside.
const (
	oneSeed   = "PARLEY_TEST_SIM_SEED"  // this one alone, with all that happened in it
	seedCount = "PARLEY_TEST_SIM_SEEDS" // so many
	seedFirst = "PARLEY_TEST_SIM_FIRST" // from this one on; 1
	seedShare = "PARLEY_TEST_SIM_SHARE" // the test's own: what a process of it runs
)

const (
	kept      = "testdata/seeds.txt" // seeds that have failed once
	stuck     = 2 * time.Minute      // without a word: virtual time stands still
	tracedOut = 200                  // lines of what happened, of a run that failed
)

// TestSimulation runs 1,000 seeds, with -race 100, after those that are kept. Its
// share each is run by as many processes as there are processors, for two
// reasons: with one processor each the order of goroutines depends less on the
// machine, and the client of NATS keeps timers that must not be seen in another
// run's time.
func TestSimulation(t *testing.T) {
	switch {
	case os.Getenv(oneSeed) != "":
		seed, err := strconv.ParseUint(os.Getenv(oneSeed), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		simulate(t, seed, true)
	case os.Getenv(seedShare) != "":
		for f := range strings.FieldsSeq(os.Getenv(seedShare)) {
			seed, err := strconv.ParseUint(f, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Println("seed", seed)
			simulate(t, seed, false)
		}
	default:
		shares(t, seeds(t))
	}
}

// simulate runs one seed; whole: everything that happened is shown.
func simulate(t *testing.T, seed uint64, whole bool) {
	t.Run(fmt.Sprint(seed), func(t *testing.T) {
		debug.SetGCPercent(400)
		//lint:ignore SA1019 the client of NATS draws from the global source
		rand.Seed(int64(seed)) //nolint:gosec // any number will do
		// The client keeps timers in a pool; those of another bubble are no good here.
		runtime.GC()
		runtime.GC()
		w := run(t, seed)
		if len(w.faults) == 0 && !whole {
			return
		}
		trace := w.trace
		if !whole {
			trace = trace[max(0, len(trace)-tracedOut):]
		}
		t.Logf("seed %d: %v, trace %x\n%s%s", seed, w.counts, w.hash, w.plan, strings.Join(trace, "\n"))
		for _, f := range w.faults {
			t.Error(f)
		}
		if t.Failed() {
			t.Logf("again: %s=%d go test -count=1 -v ./router/cluster/simulation -run TestSimulation\nkeep it: a line with %d in router/cluster/simulation/%s", oneSeed, seed, seed, kept)
		}
	})
}

// seeds are those that are kept, and then those that were asked for.
func seeds(t *testing.T) (all []uint64) {
	f, err := os.Open(kept)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		line, _, _ := strings.Cut(s.Text(), "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		seed, err := strconv.ParseUint(line, 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", kept, err)
		}
		all = append(all, seed)
	}
	n := 1000
	if withRace {
		n = 100
	}
	first := number(t, seedFirst, 1)
	for i := range number(t, seedCount, n) {
		all = append(all, uint64(first+i)) //nolint:gosec // neither is negative
	}
	return all
}

func number(t *testing.T, name string, otherwise int) int {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		t.Fatalf("%s=%s: not a number", name, text)
	}
	return n
}

// shares lets processes of this test run the seeds.
func shares(t *testing.T, all []uint64) {
	n := min(runtime.GOMAXPROCS(0), len(all))
	of := make([][]string, n)
	for i, seed := range all {
		of[i%n] = append(of[i%n], fmt.Sprint(seed))
	}
	var wait sync.WaitGroup
	for _, mine := range of {
		wait.Go(func() { share(t, mine) })
	}
	wait.Wait()
}

// share is one process; what it says is shown when it fails.
func share(t *testing.T, mine []string) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestSimulation$", "-test.timeout=0") //nolint:gosec // this test itself
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1", seedShare+"="+strings.Join(mine, " "))
	out := &output{alive: time.AfterFunc(stuck, func() { _ = cmd.Process.Signal(syscall.SIGQUIT) })}
	defer out.alive.Stop()
	cmd.Stdout, cmd.Stderr = out, out
	err := cmd.Run()
	if err != nil {
		t.Errorf("%v; the last seed was %s\n%s", err, out.last, out.text.Bytes())
	}
}

// output is what a process says.
type output struct {
	text  bytes.Buffer
	last  string
	alive *time.Timer
}

// Write implements io.Writer.
func (o *output) Write(b []byte) (int, error) {
	for line := range strings.Lines(string(b)) {
		if seed, ok := strings.CutPrefix(line, "seed "); ok {
			o.last = strings.TrimSpace(seed)
			o.alive.Reset(stuck)
			continue
		}
		o.text.WriteString(line)
	}
	return len(b), nil
}
