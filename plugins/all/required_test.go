package all_test

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"

	frame "parley/plugins"
	"parley/plugins/all"
	"parley/plugins/plugintest"
)

// journal is a log that a test reads while it is written.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) { j.mu.Lock(); defer j.mu.Unlock(); return j.b.Write(p) }

func (j *journal) String() string { j.mu.Lock(); defer j.mu.Unlock(); return j.b.String() }

// Who stops something that others require is told of all of them at once, and whose
// configuration switches it off finds them in the log.
func TestWhatRequiresItIsNamed(t *testing.T) {
	needs := []string{"inbox in processor", "mucsub in processor"}
	h := plugintest.Start(t, plugintest.Options{Plugins: all.Plugins()})
	_, err := h.Host().Control().StopPlugin(t.Context(), "test", "muc")
	if !errors.Is(err, frame.ErrRequired) {
		t.Fatalf("stopped: %v", err)
	}
	for _, name := range needs {
		if strings.Count(err.Error(), name) != 1 {
			t.Errorf("%v does not name %s, once", err, name)
		}
	}
	log := &journal{}
	plugintest.Start(t, plugintest.Options{Plugins: all.Plugins(), Log: log, Config: "servers: {processor: {components: {muc: {enabled: false}}}}"})
	for line := range strings.Lines(log.String()) {
		if !strings.Contains(line, "switched off") {
			continue
		}
		for _, name := range needs {
			if !strings.Contains(line, "component=muc") || !strings.Contains(line, name) {
				t.Errorf("%s does not name %s", line, name)
			}
		}
		return
	}
	t.Error("nothing is said of what is switched off")
}

// Registration that is in the streamer alone is what captcha there requires: nobody is
// told that it does without.
func TestWhatIsBesideItIsNotMissed(t *testing.T) {
	log := &journal{}
	plugintest.Start(t, plugintest.Options{Plugins: all.Plugins(), Log: log, Config: `servers: {streamer: {components: {register: {enabled: true}, captcha: {enabled: true, questions: {"How many days has a week?": ["7"]}}}}}`})
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, "switched off") {
			t.Error(line)
		}
	}
}
