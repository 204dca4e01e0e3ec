package stream

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"sync"
	"syscall"
)

// door is where clients come in.
type door struct {
	name, key, address string
	streams            bool // nothing else comes in here: it is closed while the Server drains
	serve              func(context.Context, net.Listener)
}

func (s *Server) doors() []door {
	return []door{
		{"c2s", "c2s", s.cfg.C2S, true, s.accept(false)},
		{"c2s-tls", "c2s_tls", s.cfg.C2STLS, true, s.accept(true)},
		{"http", "http", s.cfg.HTTP, false, s.serveHTTP(false)},
		{"https", "https", s.cfg.HTTPS, false, s.serveHTTP(true)},
	}
}

// openDoors are those of one call of Serve.
type openDoors struct {
	mu   sync.Mutex
	all  []openDoor
	shut bool // Serve ends: none is opened any more
}

type openDoor struct {
	door
	net.Listener
}

// listen opens every door, or none, and serves them until ctx is done. While the
// Server drains those for streams stay closed.
func (s *Server) listen(ctx context.Context, sv *serving) error {
	defer func() {
		sv.doors.mu.Lock()
		sv.doors.shut = true
		sv.doors.mu.Unlock()
		s.closeDoors(sv, func(door) bool { return true })
	}()
	s.conns.begin()
	if err := s.openDoors(ctx, sv, func(d door) bool { return !d.streams || !s.draining.Load() }); err != nil {
		return err
	}
	s.mu.Lock()
	opened := s.open
	s.mu.Unlock()
	close(opened)
	<-ctx.Done()
	s.mu.Lock()
	s.open = make(chan struct{})
	s.mu.Unlock()
	return nil
}

// openDoors opens all that are configured and wanted, or none.
func (s *Server) openDoors(ctx context.Context, sv *serving, wanted func(door) bool) error {
	sv.doors.mu.Lock()
	defer sv.doors.mu.Unlock()
	if sv.doors.shut {
		return errStopped
	}
	var fresh []openDoor
	for _, d := range s.doors() {
		if d.address == "" || !wanted(d) {
			continue
		}
		l, err := (&net.ListenConfig{KeepAliveConfig: keepAlive()}).Listen(ctx, "tcp", d.address)
		if err != nil {
			for _, o := range fresh {
				_ = o.Close()
			}
			return fmt.Errorf("%s: %w (%s: servers.streamer.%s or --%s)", d.name, err, remedy(err), d.key, d.name)
		}
		fresh = append(fresh, openDoor{d, l})
	}
	for _, o := range fresh {
		s.noteAddress(o.name, o.Addr())
		s.log.Info("listening", "door", o.name, "address", o.Addr().String())
		sv.tasks.Go(func() { o.serve(ctx, o.Listener) })
	}
	sv.doors.all = append(sv.doors.all, fresh...)
	return nil
}

// remedy is what to do about an address that cannot be listened on.
func remedy(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "`ss -ltnp` shows who has it; stop that, or choose another address"
	case errors.Is(err, fs.ErrPermission):
		return "give the program CAP_NET_BIND_SERVICE, as examples/parley.service does, or choose a port above 1023"
	}
	return "choose an address of this machine"
}

// closeDoors lets nobody in any more there; who is in stays.
func (s *Server) closeDoors(sv *serving, which func(door) bool) {
	sv.doors.mu.Lock()
	defer sv.doors.mu.Unlock()
	var stay []openDoor
	for _, o := range sv.doors.all {
		if !which(o.door) {
			stay = append(stay, o)
			continue
		}
		_ = o.Close()
		s.noteAddress(o.name, nil)
	}
	sv.doors.all = stay
}
