package main

import (
	"context"
	"fmt"
	"io"
)

func (s *setup) demonstrate(ctx context.Context, w io.Writer, open map[string]string) {
	_ = ctx
	fmt.Fprintln(w, port(open["c2s"]))
}
