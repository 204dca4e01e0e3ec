package admincommands

import (
	"context"
	"strconv"
	"sync"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/plugins/commands"
)

// haltFields are those of XEP-0133 §4.30.
func haltFields() []form.Field {
	delay := form.Field{Var: "delay", Type: form.ListSingle, Label: "Time delay", Values: []string{"60"}}
	for _, s := range []int{30, 60, 90, 120, 180, 240, 300} {
		delay.Options = append(delay.Options, form.Option{Value: strconv.Itoa(s), Label: strconv.Itoa(s) + " seconds"})
	}
	return []form.Field{delay, {Var: "announcement", Type: form.TextMulti, Label: "Announcement"}}
}

// maxDelay is how long before the end it can be asked for.
const maxDelay = 24 * time.Hour

// halting is the end that is near; another command puts off the one before.
type halting struct {
	mu    sync.Mutex // guards stop and ended
	stop  func() bool
	ended bool
}

func (h *halting) set(after func() (stop func() bool)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stop != nil {
		h.stop()
	}
	if !h.ended {
		h.stop = after()
	}
}

func (h *halting) cancel() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ended = true
	if h.stop != nil {
		h.stop()
	}
}

// halt is XEP-0133 §4.30 and §4.31: the whole server ends, every node of it. This one
// counts the time; with it goes what it has counted.
func (a *component) halt(again bool) func(context.Context, *commands.Execution) (*commands.Outcome, error) {
	return func(ctx context.Context, e *commands.Execution) (*commands.Outcome, error) {
		seconds, err := strconv.Atoi(e.Last().Value("delay"))
		delay := time.Duration(seconds) * time.Second
		if err != nil || seconds < 0 || delay > maxDelay {
			return nil, stanza.NewError(stanza.NotAcceptable, "delay: a number of seconds")
		}
		if f, ok := e.Last().Field("announcement"); ok && len(f.Values) > 0 {
			body, err := written(e.Last(), "announcement")
			if err != nil {
				return nil, err
			}
			for _, d := range a.env.Domains.List() {
				domain, err := jid.Parse(d)
				if err != nil {
					return nil, err
				}
				if err := a.send(ctx, announcement{domain: domain, audience: toOnline, body: body}); err != nil {
					return nil, err
				}
			}
		}
		a.env.Log.Warn("the server is to end", "by", e.Account().String(), "again", again, "delay", delay)
		a.halting.set(func() func() bool {
			return a.env.Clock.AfterFunc(delay, func() { a.end(again) })
		})
		return nil, nil
	}
}

// topicHalt tells other nodes to end; the key says whether to begin again.
const topicHalt = "admincommands.halt"

func (a *component) end(again bool) {
	if a.env.Notices != nil {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		if err := a.env.Notices.Tell(ctx, topicHalt, strconv.FormatBool(again)); err != nil {
			a.env.Log.Error("another node does not end", "err", err)
		}
	}
	a.env.Halt(again)
}
