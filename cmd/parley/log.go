package main

import (
	"fmt"
	"io"
	"log/slog"

	"parley/plugins"
)

// newLog returns the logger of the configuration, and its level, which a
// reload may change.
func newLog(w io.Writer, s plugins.LogSettings) (*slog.Logger, *slog.LevelVar, error) {
	level := &slog.LevelVar{}
	if err := level.UnmarshalText([]byte(s.Level)); err != nil {
		return nil, nil, fmt.Errorf("log.level: %w", err)
	}
	opt := &slog.HandlerOptions{Level: level}
	if s.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, opt)), level, nil
	}
	return slog.New(slog.NewTextHandler(w, opt)), level, nil
}
