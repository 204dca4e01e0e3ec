package externals

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// process is one run of a component.
type process struct {
	pid    int
	exited chan struct{}
	err    error // of how it ended; with exited closed
}

// launch starts the command of a version in its folder. It lives in a process
// group of its own, which ends with it; where the system can, it ends with this
// process, too.
func launch(dir string, m *Manifest, env []string, log io.Writer) (*process, error) {
	path := filepath.Join(dir, filepath.Clean("/"+m.Command))
	if info, err := os.Stat(path); filepath.IsAbs(m.Command) || err != nil || info.IsDir() {
		if path, err = exec.LookPath(m.Command); err != nil {
			return nil, fmt.Errorf("command: %w", err)
		}
	}
	cmd := exec.Command(path, m.Args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, log, log
	cmd.SysProcAttr = attributes()
	cmd.WaitDelay = time.Second // what it has left behind may hold the pipe
	p := &process{exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		// Its end follows that of the thread that has started it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			p.pid = cmd.Process.Pid
		}
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		_ = syscall.Kill(-p.pid, syscall.SIGKILL) // what is left of its group
		close(p.exited)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("command: %w", err)
	}
	return p, nil
}

// kill ends it at once, its children included.
func (p *process) kill() {
	_ = syscall.Kill(-p.pid, syscall.SIGKILL)
	<-p.exited
}

// end asks it to end, and kills it when it does not within the grace.
func (p *process) end(ctx context.Context, grace <-chan struct{}) {
	select {
	case <-p.exited:
		return
	default:
	}
	_ = syscall.Kill(-p.pid, syscall.SIGTERM)
	select {
	case <-p.exited:
	case <-grace:
		p.kill()
	case <-ctx.Done():
		p.kill()
	}
}

// environment is what a component gets: where programs are, what its manifest
// says, how to connect.
func environment(m *Manifest, secret, host, port string) []string {
	var out []string
	for _, k := range []string{"PATH", "HOME", "LANG", "TZ", "TMPDIR"} {
		if v, ok := os.LookupEnv(k); ok {
			out = append(out, k+"="+v)
		}
	}
	for k, v := range m.Environment {
		out = append(out, k+"="+strings.ReplaceAll(v, "\x00", ""))
	}
	return append(out,
		"PARLEY_COMPONENT_DOMAIN="+m.Domain, "PARLEY_COMPONENT_SECRET="+secret,
		"PARLEY_COMPONENT_HOST="+host, "PARLEY_COMPONENT_PORT="+port)
}
