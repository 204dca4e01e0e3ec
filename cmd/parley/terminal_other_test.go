//go:build !linux

package main

import (
	"os"
	"testing"
)

func terminal(t *testing.T) (reading, writing *os.File) {
	t.Skip("no pseudo terminal here")
	return nil, nil
}
