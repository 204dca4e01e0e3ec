//go:build linux

package main

import (
	"strings"
	"testing"
)

// What is not there is refused: an empty table looks like a result.
func TestBenchRefusesWhatIsNotThere(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"--only", "nosuch"}, "rows are chat1, "},
		{[]string{"--skip", "nosuch"}, "rows are chat1, "},
		{[]string{"--only", "idle", "--parley", "/nofile"}, "make build"},
	} {
		cmd := benchCommand()
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		cmd.SetArgs(c.args)
		if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%v: %v", c.args, err)
		}
	}
}
