package federation

import "syscall"

// childAttributes let a child end with the test, whatever becomes of that.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
