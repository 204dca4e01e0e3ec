//go:build !linux

package stream

import "syscall"

// system is not there: connections keep their goroutines.
type system struct{}

type event struct {
	fd               int
	number           int32
	read, write, hup bool
}

func (*system) open() error          { return errNoPoller }
func (*system) close()               {}
func (*system) next() int32          { return 0 }
func (*system) add(int, int32) error { return errNoPoller }
func (*system) remove(int)           {}
func (*system) wait() []event        { return nil }

func duplicate(syscall.RawConn) (int, error) { return -1, errNoPoller }
