package archive

import (
	"maps"
	"slices"
	"sync"

	"parley/router/sessions"
)

// will is what a component leaves to the one after it: the sessions that are
// being brought what they missed. Live messages are held back from those until
// somebody has gone on with it. It is bounded by the sessions that were bound.
type will struct {
	mu       sync.Mutex
	heir     *part // is at work; nil: nobody
	replays  []*replay
	finished map[sessions.Ref]int64
}

// open makes p the heir: it gets what was left, and what will be.
func (w *will) open(p *part) {
	w.mu.Lock()
	if p.stopped.Load() {
		w.mu.Unlock()
		return
	}
	open, finished := w.replays, w.finished
	w.heir, w.replays, w.finished = p, nil, nil
	p.tasks.Go(func() { p.replays.adopt(open, finished) }) // with the lock held: p does not stop before
	w.mu.Unlock()
}

// close begins the end of p: it gets nothing new to do.
func (w *will) close(p *part) {
	w.mu.Lock()
	defer w.mu.Unlock()
	p.stopped.Store(true)
	if w.heir == p {
		w.heir = nil
	}
}

// during calls f unless p has begun to end; p does not end before f has returned.
func (w *will) during(p *part, f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !p.stopped.Load() {
		f()
	}
}

// withHeir calls f with the component that is at work, if there is one; it does
// not end before f has returned.
func (w *will) withHeir(f func(*part)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.heir != nil {
		f(w.heir)
	}
}

// leave takes over from p, in which nothing is at work any more.
func (w *will) leave(p *part) {
	open, finished := p.replays.abandon()
	w.mu.Lock()
	defer w.mu.Unlock()
	if next := w.heir; next != nil {
		next.tasks.Go(func() { next.replays.adopt(open, finished) })
		return
	}
	w.replays = append(w.replays, open...)
	if w.finished == nil {
		w.finished = finished
	} else {
		maps.Copy(w.finished, finished)
	}
}

// abandon gives away everything; nothing is at work any more.
func (r *replays) abandon() ([]*replay, map[sessions.Ref]int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	open, left := slices.Collect(maps.Values(r.open)), r.left
	r.open, r.left = map[sessions.Ref]*replay{}, map[sessions.Ref]int64{}
	return open, left
}

// adopt goes on with what another component has begun, unless the session has
// gone or wants nothing any more. Whether it has taken its last page nobody
// has seen, so it gets one more.
func (r *replays) adopt(open []*replay, finished map[sessions.Ref]int64) {
	for ref, upTo := range finished {
		r.mu.Lock()
		if _, known := r.left[ref]; !known && r.open[ref] == nil {
			r.left[ref] = upTo
		}
		r.mu.Unlock()
		if now, ok := r.part.env.Sessions.Find(ref.JID); !ok || now.Ref != ref {
			r.forget(ref)
		}
	}
	for _, re := range open {
		now, ok := r.part.env.Sessions.Find(re.ref.JID)
		switch {
		case !ok || now.Ref != re.ref || !now.Replaying:
		case !now.Receives():
			r.live(re.ref)
		default:
			r.mu.Lock()
			fresh := r.open[re.ref] == nil
			if fresh {
				re.wait = 0
				r.open[re.ref] = re
			}
			r.mu.Unlock()
			if fresh {
				r.goOn(re)
			}
		}
	}
}
