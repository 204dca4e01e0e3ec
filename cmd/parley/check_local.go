package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"parley/storage"
	"parley/storage/atrest"
	"parley/storage/space"
)

// directory looks at the data directory: keys are in it.
func (e *examination) directory(context.Context) []result {
	const area = "data"
	dir := e.settings.Data
	st, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []result{ok(area, "%s is not there yet; the first start makes it", dir)}
	case err != nil:
		return []result{fault(area, "let the server's user enter it", "%v", err)}
	case !st.IsDir():
		return []result{fault(area, "choose another with the key data", "%s is no directory", dir)}
	case st.Mode().Perm()&0o077 != 0:
		return []result{warn(area, "chmod 700 "+dir, "%s (%s): other users of this machine can enter it", dir, st.Mode().Perm())}
	}
	return append([]result{ok(area, "%s is the server's alone", dir)}, e.space(dir)...)
}

// keys reads the keys file, without which the server does not start.
func (e *examination) keys(context.Context) []result {
	const area = "keys"
	file := e.settings.Storage.Encryption.KeysFile
	if file == "" {
		return nil
	}
	ring, err := atrest.Load(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []result{fault(area, "put it back; for the first time `parley keys new` makes it", "%v", err)}
	case err != nil:
		return []result{fault(area, "", "%v", err)}
	}
	dir, err := filepath.Abs(e.settings.Data)
	if err == nil && strings.HasPrefix(file, dir+string(filepath.Separator)) {
		return []result{warn(area, "move it, and change storage.encryption.keys_file", "%s is in the data directory: who copies that has both", file)}
	}
	return []result{ok(area, "%s has %v; is there a copy of it elsewhere?", file, ring)}
}

// secrets looks at files with passwords and connection strings, which nobody else
// is to read.
func (e *examination) secrets(context.Context) []result {
	all := e.tree.Show()
	secret := map[string]bool{}
	for _, entry := range all {
		secret[entry.Path] = entry.Value == "***"
	}
	var out []result
	for _, entry := range all {
		of, isFile := strings.CutSuffix(entry.Path, "_file")
		if !isFile || !secret[of] {
			continue
		}
		if st, err := os.Stat(entry.Value); err == nil && st.Mode().Perm()&0o007 != 0 {
			out = append(out, warn("secrets", "chmod 640 "+entry.Value+", and make it the server's group's", "every user of this machine can read %s (%s)", entry.Value, entry.Path))
		}
	}
	return out
}

// Free space below which the database will soon stop.
const (
	spaceLow  = 1 << 30
	spaceNone = 100 << 20
)

func (e *examination) space(dir string) []result {
	free, known := space.Free(dir)
	if !known {
		return []result{warn("disk", "", "the free space of %s is not known", dir)}
	}
	text := fmt.Sprintf("%d MiB free for %s", free>>20, dir)
	const fix = "make room, or move the data directory to a larger disk: without space nothing can be stored, and messages are refused"
	switch {
	case free < spaceNone:
		return []result{fault("disk", fix, "%s", text)}
	case free < spaceLow:
		return []result{warn("disk", fix, "%s", text)}
	}
	return []result{ok("disk", "%s", text)}
}

// ports sees whether each door is free, or open already.
func (e *examination) ports(ctx context.Context) []result {
	doors, err := e.doors()
	if err != nil {
		return []result{fault("ports", "", "%v", err)}
	}
	if e.streamer.TLS.ACME.Enabled {
		doors = append(doors, door{"acme", e.streamer.TLS.ACME.HTTP, "certificate challenges"})
	}
	var out []result
	for _, d := range doors {
		out = append(out, e.port(ctx, d))
	}
	return out
}

func (e *examination) port(ctx context.Context, d door) result {
	const area = "ports"
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", d.address)
	switch {
	case err == nil:
		_ = l.Close()
		if e.running && port(d.address) != "0" {
			return warn(area, "restart the server: this address is configured, but not open", "%s (%s) is free although the server runs", d.address, d.name)
		}
		return ok(area, "%s (%s) is free", d.address, d.name)
	case errors.Is(err, syscall.EADDRINUSE) && e.running:
		return ok(area, "%s (%s) is in use while the server runs", d.address, d.name)
	case errors.Is(err, syscall.EADDRINUSE):
		return fault(area, "see who has it with `ss -ltnp`, and stop that or choose another address", "%s (%s) is in use by another program", d.address, d.name)
	case errors.Is(err, fs.ErrPermission):
		return fault(area, "give the program CAP_NET_BIND_SERVICE, as examples/parley.service does, or choose a port above 1023", "%s (%s) may not be opened by this user", d.address, d.name)
	}
	return fault(area, "choose an address of this machine", "%s (%s): %v", d.address, d.name, err)
}

// database opens it, writes to it and looks at its integrity.
func (e *examination) database(ctx context.Context) []result {
	const area = "database"
	c := e.settings.StorageConfig()
	if c.Driver == "sqlite" {
		if _, err := os.Stat(c.Path); errors.Is(err, fs.ErrNotExist) {
			return []result{e.writable(filepath.Dir(c.Path))}
		}
	}
	if err := becomeOwner(e.settings.Data); err != nil {
		return []result{warn(area, "run this as the server's user", "not opened: %v", err)}
	}
	db, err := storage.Open(ctx, c, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		return []result{fault(area, databaseFix(c), "%v", err)}
	}
	defer func() { _ = db.Close() }()
	if err := db.Ping(ctx); err != nil {
		return []result{fault(area, databaseFix(c), "does not take reads and writes: %v", err)}
	}
	out := []result{ok(area, "%s takes reads and writes", db.Dialect())}
	if db.Dialect() == storage.SQLite {
		out = append(out, integrity(ctx, db))
	}
	return out
}

func databaseFix(c storage.Config) string {
	if c.Driver == "postgres" {
		return "see that Postgres runs, that the connection string is right, and that its user may create tables"
	}
	return "see that " + c.Path + " belongs to the server's user and is on a local disk with free space"
}

// integrity is SQLite's own check (https://sqlite.org/pragma.html#pragma_quick_check).
func integrity(ctx context.Context, db storage.DB) result {
	var text string
	if err := db.QueryRow(ctx, "PRAGMA quick_check(1)").Scan(&text); err != nil {
		return warn("database", "try again when the server has less to do", "integrity not checked: %v", err)
	}
	if text != "ok" {
		return fault("database", "stop the server and restore a backup; `sqlite3 parley.db .recover` saves what can be read", "is damaged: %s", text)
	}
	return ok("database", "its integrity is right")
}

// writable sees whether a file could be made in a directory, or in the nearest
// one above it that is there.
func (e *examination) writable(dir string) result {
	for {
		f, err := os.CreateTemp(dir, ".parley-check-*")
		if err == nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
			return ok("database", "is not there yet; the first start makes it")
		}
		up := filepath.Dir(dir)
		if !errors.Is(err, fs.ErrNotExist) || up == dir {
			return fault("database", "let the server's user write there", "cannot be made: %v", err)
		}
		dir = up
	}
}

// clock compares with the only time that is known for sure: that of the build.
func (e *examination) clock(context.Context) []result {
	const area = "clock"
	const fix = "set the clock and run a time service (`timedatectl set-ntp true`): certificates, tokens and archives depend on it"
	switch {
	case !e.built.IsZero() && e.now.Before(e.built):
		return []result{fault(area, fix, "%s is before this program was written (%s)", e.now.Format(time.DateTime), e.built.Format(time.DateTime))}
	case e.now.Year() < 2025 || e.now.Year() > 2100:
		return []result{fault(area, fix, "%s cannot be", e.now.Format(time.DateTime))}
	}
	return []result{ok(area, "%s", e.now.Format(time.RFC3339))}
}

// spareDescriptors are for the database, logs and connections that are not
// counted.
const spareDescriptors = 500

// descriptors compares the limit with the connections that may come.
func (e *examination) descriptors(context.Context) []result {
	const area = "limits"
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		return []result{warn(area, "", "open files: %v", err)}
	}
	need := uint64(e.streamer.Connections.Total) + spareDescriptors
	if uint64(l.Cur) < need {
		return []result{warn(area, fmt.Sprintf("LimitNOFILE=%d in the systemd unit, or lower servers.streamer.connections.total", need),
			"%d files may be open at once; %d connections are allowed", l.Cur, e.streamer.Connections.Total)}
	}
	return []result{ok(area, "%d files may be open at once", l.Cur)}
}
