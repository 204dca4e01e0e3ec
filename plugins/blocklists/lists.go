package blocklists

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"

	"parley/parser/jid"
	"parley/plugins"
)

// topic is what nodes tell each other under: "SOURCE", the whole list has changed;
// "SOURCE HASH,HASH…", some items have.
const topic = "blocklists"

// Lists are the block lists as this node knows them: all of what is kept, so that
// looking somebody up asks nobody. It is the plugin's contract, safe for concurrent use.
type Lists struct {
	env   plugins.Env
	store store

	loading sync.Mutex // held while the database is read and what it says taken over
	mu      sync.RWMutex
	lists   map[string]*list // by source
	news    chan struct{}    // closed with the next change
	any     atomic.Bool      // somebody is listed
}

// list is one list in memory.
type list struct {
	source
	rooms   bool  // it is about rooms alone
	version int64 // of the database, as it was read
	has     map[hash]struct{}
	off     int // were taken off since it was read
}

// change is that an item is on a list now, or is not any more.
type change struct {
	entry
	listed bool
}

func newLists(env plugins.Env) *Lists {
	l := &Lists{env: env, store: store{env}, lists: map[string]*list{}, news: make(chan struct{})}
	env.OnForget(topic, l.told)
	return l
}

// told is what another node has to say.
func (l *Lists) told(key string) {
	ctx, cancel := context.WithTimeout(context.Background(), tellLimit)
	defer cancel()
	src, ids, some := strings.Cut(key, " ")
	var all []hash
	for id := range strings.SplitSeq(ids, ",") {
		if h, ok := parseHash(id); ok {
			all = append(all, h)
		}
	}
	err := error(nil)
	if some {
		err = l.loadSome(ctx, src, all)
	} else {
		err = l.load(ctx, src)
	}
	if err != nil { // it is read again soon
		l.env.Log.Warn("block list not read", "list", src, "err", err)
	}
}

// configure sets which lists there are; what is known of those that stay stays.
func (l *Lists) configure(all []*list) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := map[string]*list{}
	for _, one := range all {
		one.has = map[hash]struct{}{}
		if old := l.lists[one.String()]; old != nil {
			one.has, one.version, one.off = old.has, old.version, old.off
		}
		next[one.String()] = one
	}
	l.lists = next
	l.count()
}

// Changed is closed when the lists are not what they are now any more.
func (l *Lists) Changed() <-chan struct{} {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.news
}

// count follows each change; mu is held.
func (l *Lists) count() {
	close(l.news)
	l.news = make(chan struct{})
	n := 0
	for _, one := range l.lists {
		n += len(one.has)
	}
	l.any.Store(n > 0)
}

// load reads a list.
func (l *Lists) load(ctx context.Context, src string) error {
	l.loading.Lock()
	defer l.loading.Unlock()
	states, err := l.store.states(ctx)
	if err != nil {
		return err
	}
	rows, err := l.store.items(ctx, src)
	if err != nil {
		return err
	}
	has := make(map[hash]struct{}, len(rows))
	for h, r := range rows {
		if r.listed {
			has[h] = struct{}{}
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if one := l.lists[src]; one != nil {
		one.has, one.version, one.off = has, states[src].version, 0
		l.count()
	}
	return nil
}

// loadSome reads items that have changed together.
func (l *Lists) loadSome(ctx context.Context, src string, all []hash) error {
	l.loading.Lock()
	defer l.loading.Unlock()
	on := make([]bool, len(all))
	for i, h := range all {
		var err error
		if _, on[i], err = l.store.listed(ctx, src, h); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	one := l.lists[src]
	if one == nil {
		return nil
	}
	for i, h := range all {
		if on[i] {
			one.has[h] = struct{}{}
		} else {
			delete(one.has, h)
			one.off++
		}
	}
	one.version++ // as often as it is told; when that does not fit, it is read anew
	l.count()
	return nil
}

// refresh reads the lists that have changed without this node having been told.
func (l *Lists) refresh(ctx context.Context, states map[string]state) error {
	var stale []string
	l.mu.RLock()
	for src, one := range l.lists {
		if one.version != states[src].version {
			stale = append(stale, src)
		}
	}
	l.mu.RUnlock()
	var errs []error
	for _, src := range stale {
		errs = append(errs, l.load(ctx, src))
	}
	return errors.Join(errs...)
}

// change puts people on a list or takes them off, here and everywhere. errFull: some are
// left out, because there is no room for more than most, or because so many were taken off
// that it is to be fetched anew.
func (l *Lists) change(ctx context.Context, src string, all []change, most int) error {
	fit := l.fitting(src, all, most)
	if len(fit) > 0 {
		ids := make([]string, len(fit))
		hashes := make([]hash, len(fit))
		for i, c := range fit {
			ids[i], hashes[i] = c.hash.String(), c.hash
		}
		if err := l.store.change(ctx, src, fit); err != nil {
			return err
		}
		defer l.env.Forget(ctx, topic, src+" "+strings.Join(ids, ","))
		if err := l.loadSome(ctx, src, hashes); err != nil {
			return err
		}
	}
	if len(fit) < len(all) {
		return errFull
	}
	return nil
}

// fitting are the changes that there is room for.
func (l *Lists) fitting(src string, all []change, most int) (out []change) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	one := l.lists[src]
	if one == nil {
		return nil
	}
	on, off := len(one.has), one.off
	for _, c := range all {
		_, there := one.has[c.hash]
		switch {
		case there && !c.listed:
			on--
		case !there && c.listed && on >= most, !there && !c.listed && off >= most:
			continue
		case !there && c.listed:
			on++
		}
		if !c.listed {
			off++
		}
		out = append(out, c)
	}
	return out
}

// reload reads a list anew, here and everywhere.
func (l *Lists) reload(ctx context.Context, src string) error {
	defer l.env.Forget(ctx, topic, src)
	return l.load(ctx, src)
}

// Match returns the list on which somebody is, of any form of JID, himself or with his
// whole domain; "": on none. rooms: lists that are about rooms count as well. The domains
// of this house are on no list.
func (l *Lists) Match(who jid.JID, rooms bool) string {
	if !l.any.Load() || who.IsZero() {
		return ""
	}
	var keys []hash
	if bare := who.Bare(); bare.Local() != "" {
		keys = append(keys, hashOf(bare.String()))
	}
	if !l.ours(who.Domain()) {
		keys = append(keys, hashOf(who.Domain()))
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	for src, one := range l.lists {
		if one.rooms && !rooms {
			continue
		}
		for _, k := range keys {
			if _, ok := one.has[k]; ok {
				return src
			}
		}
	}
	return ""
}

// ours reports whether a domain is ours or below one of ours.
func (l *Lists) ours(domain string) bool {
	_, parent, _ := strings.Cut(domain, ".")
	return l.env.Local(domain) || l.env.Local(parent)
}

// sizes is how many are on each list.
func (l *Lists) sizes() map[string]int {
	l.mu.RLock()
	defer l.mu.RUnlock()
	out := map[string]int{}
	for src, one := range l.lists {
		out[src] = len(one.has)
	}
	return out
}
