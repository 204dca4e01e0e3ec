package externals

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync"
)

// logfile is what a component has written: the file, and behind it the one before
// it, each about max bytes at most.
type logfile struct {
	path string
	max  int64

	mu   sync.Mutex
	f    *os.File
	size int64
}

var _ io.Writer = (*logfile)(nil)

// Write never fails: a full disk must not end the component.
func (l *logfile) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil && l.open() != nil {
		return len(p), nil
	}
	if l.size > 0 && l.size+int64(len(p)) > l.max {
		_ = l.f.Close()
		_ = os.Rename(l.path, l.path+".1")
		if l.open() != nil {
			return len(p), nil
		}
	}
	n, _ := l.f.Write(p[:min(int64(len(p)), l.max)])
	l.size += int64(n)
	return len(p), nil
}

func (l *logfile) open() (err error) {
	if l.f, err = os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		l.f = nil
		return fmt.Errorf("log of a component: %w", err)
	}
	l.size, err = l.f.Seek(0, io.SeekEnd)
	return err
}

func (l *logfile) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f != nil {
		_ = l.f.Close()
		l.f = nil
	}
}

// tail returns the last lines.
func (l *logfile) tail(lines int) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []byte
	for _, path := range []string{l.path + ".1", l.path} {
		raw, err := os.ReadFile(path)
		if err != nil && !os.IsNotExist(err) {
			return nil, fmt.Errorf("log of a component: %w", err)
		}
		all = append(all, raw...)
	}
	at := len(all)
	for n := 0; at > 0; {
		i := bytes.LastIndexByte(all[:at-1], '\n')
		if n++; n >= lines || i < 0 {
			at = i + 1
			break
		}
		at = i + 1
	}
	return all[at:], nil
}
