package main

import (
	"io"
	"log/slog"
	"testing"
)

// Profiles tell what goes on inside: nobody but this machine may ask.
func TestProfilesStayOnLoopback(t *testing.T) {
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	for _, addr := range []string{"0.0.0.0:0", ":0", "192.0.2.1:0", "localhost:0", "127.0.0.1"} {
		if profiles(t.Context(), addr, log) == nil {
			t.Errorf("%s was accepted", addr)
		}
	}
	if err := profiles(t.Context(), "127.0.0.1:0", log); err != nil {
		t.Error(err)
	}
}
