package bytestreams

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"parley/plugins"
	"parley/stream"
)

// greeting is how long a connection may take to say what it is.
const greeting = 20 * time.Second

// door is where clients connect.
type door struct {
	env    plugins.Env
	table  *table
	listen net.Listener // nil: nowhere
	ctx    context.Context
	cancel context.CancelFunc
	tasks  sync.WaitGroup
}

func newDoor(env plugins.Env, t *table) *door {
	d := &door{env: env, table: t}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d
}

func (d *door) open(address string) (err error) {
	if d.listen, err = net.Listen("tcp", address); err != nil {
		return fmt.Errorf("bytestreams: %w (servers.processor.components.bytestreams.address: another one)", err)
	}
	d.env.Log.Info("listening", "door", "bytestreams", "address", d.listen.Addr().String())
	d.tasks.Go(func() {
		stream.Accept(d.ctx, d.listen, d.env.Clock, d.env.Log, func(c net.Conn) { _ = c.Close() }, d.take)
	})
	return nil
}

// port is where it listens.
func (d *door) port() int {
	if a, ok := d.listen.Addr().(*net.TCPAddr); ok {
		return a.Port
	}
	return 0
}

// close returns when nobody is greeted any more; the table closes those who wait.
func (d *door) close() {
	d.cancel()
	if d.listen != nil {
		_ = d.listen.Close()
	}
	d.tasks.Wait()
}

// take gives a connection its place, or none.
func (d *door) take(c net.Conn) {
	w, err := d.table.enter(c)
	if err != nil {
		d.table.m.refused.WithLabelValues("room").Inc()
		_ = c.Close()
		return
	}
	d.tasks.Go(func() {
		stop := context.AfterFunc(d.ctx, func() { d.table.leave(w) })
		defer stop()
		if err := d.greet(w); err != nil {
			d.table.m.refused.WithLabelValues("greeting").Inc()
			d.env.Log.Debug("a bytestream's connection is refused", "remote", c.RemoteAddr().String(), "err", err)
			d.table.leave(w)
		}
	})
}

// greet finds out which bytestream the connection is of. It waits for the other one
// before it hears that it is connected: whoever is told so can have it activated.
func (d *door) greet(w *waiter) error {
	if err := w.SetDeadline(time.Now().Add(greeting)); err != nil {
		return err
	}
	r, err := greet(w.Conn)
	if err != nil {
		return err
	}
	if err := d.table.meet(w, r.destination); err != nil {
		_, _ = w.Write(r.reply(repForbidden))
		return err
	}
	if _, err := w.Write(r.reply(repOK)); err != nil {
		return err
	}
	return nil
}
