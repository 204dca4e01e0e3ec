package pushsender

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"parley/parser/stanza"
	"parley/plugins/push"
	"parley/processor"
)

// sender reaches devices by one kind of outside service.
type sender interface {
	// check reports, as a *stanza.Error, what is wrong with a registration.
	check(*registration) error
	// host is where notes for it go.
	host(*registration) string
	// send returns nil when the service has taken the note. Errors: errGone, or
	// *laterError, or another one, which is tried again as well. They name no
	// endpoint, token or key.
	send(context.Context, *note) error
}

// Kinds of outside services.
const (
	kindWebPush = "webpush"
	kindAPNs    = "apns"
	kindFCM     = "fcm"
)

// errGone says that the device is not there any more.
var errGone = errors.New("the device is gone")

// laterError is a service that says when to try again.
type laterError struct {
	after time.Duration
	why   string
}

func (e *laterError) Error() string { return fmt.Sprintf("later, in %s: %s", e.after, e.why) }

// refused is the answer of an outside service that has not taken a note.
func refused(r *http.Response, reason string, now time.Time) error {
	why := fmt.Sprintf("status %d %s", r.StatusCode, reason)
	if after := retryAfter(r.Header.Get("Retry-After"), now); after > 0 {
		return &laterError{after, why}
	}
	return errors.New(why)
}

// maxAfter bounds what an outside service can ask for.
const maxAfter = 24 * time.Hour

// retryAfter reads the header (RFC 9110 §10.2.3); 0: it says nothing.
func retryAfter(s string, now time.Time) time.Duration {
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return min(time.Duration(n)*time.Second, maxAfter)
	}
	if t, err := http.ParseTime(s); err == nil {
		return min(max(t.Sub(now), 0), maxAfter)
	}
	return 0
}

// anonymous takes the address, which is a secret, out of an error of net/http.
func anonymous(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return fmt.Errorf("request: %w", u.Err)
	}
	return err
}

// accept lets a job be sent, or says when to try again.
func (s *service) accept(j *job) error {
	r := &j.to
	to, ok := s.senders[r.kind]
	if !ok {
		s.m.sent.WithLabelValues(r.kind, "off").Inc()
		return push.Retry(time.Hour, "the server does not send by "+r.kind+" at the moment")
	}
	if wait := time.UnixMicro(r.retryAt).Sub(s.env.Clock.Now()); wait > 0 {
		s.m.sent.WithLabelValues(r.kind, "postponed").Inc()
		return push.Retry(wait, "the outside service is left alone until then")
	}
	j.host = to.host(r)
	if wait, ok := s.queue.put(j); !ok {
		s.m.sent.WithLabelValues(r.kind, "postponed").Inc()
		return push.Retry(wait, "there is too much to send")
	}
	return processor.ErrUnanswered
}

// send sends a job and answers who has asked. It runs in a worker.
func (s *service) send(ctx context.Context, j *job) {
	defer s.queue.done(j)
	on := context.WithoutCancel(ctx)
	left := min(s.cfg.Timeout, j.until.Sub(s.env.Clock.Now()))
	if left <= 0 || ctx.Err() != nil {
		s.m.sent.WithLabelValues(j.to.kind, "postponed").Inc()
		s.answer(on, j, push.Retry(retryStop, "there was too much to send"))
		return
	}
	limited, cancel := context.WithTimeout(ctx, left)
	err := s.senders[j.to.kind].send(limited, &j.note)
	cancel()
	stored, cancel := context.WithTimeout(on, storeLimit)
	defer cancel()
	s.answer(on, j, s.outcome(stored, j, err, ctx.Err() != nil))
}

// storeLimit ends one access to the database.
const storeLimit = 4 * time.Second

// outcome writes down what came of a job; nil: it is done.
func (s *service) outcome(ctx context.Context, j *job, err error, stopped bool) *stanza.Error {
	r := &j.to
	result, answer, keep := "sent", (*stanza.Error)(nil), func() error { return s.store.well(ctx, r) }
	switch {
	case err == nil:
	case stopped:
		result, answer, keep = "postponed", push.Retry(retryStop, "the service ends"), nil
	case errors.Is(err, errGone), s.hopeless(r):
		result, answer = "gone", stanza.NewError(stanza.ItemNotFound, "the registration has ended") // XEP-0357 §7.1
		keep = func() error { return s.store.end(ctx, r) }
		s.env.Log.Info("a push registration ends", "account", r.owner.String(), "kind", r.kind, "err", err)
	default:
		after := pause(r.failures)
		var later *laterError
		if errors.As(err, &later) {
			after = later.after
		}
		result, answer = "failed", push.Retry(after, "the outside service does not take it now")
		keep = func() error { return s.store.failed(ctx, r, after) }
		s.env.Log.Warn("an outside push service fails", "account", r.owner.String(), "kind", r.kind, "failures", r.failures+1, "retry", after, "err", err)
	}
	s.m.sent.WithLabelValues(r.kind, result).Inc()
	if keep == nil {
		return answer
	}
	if err := keep(); err != nil { // what was sent is sent; what was not comes again
		s.env.Log.Warn("the state of a push registration is not kept", "account", r.owner.String(), "err", err)
		if result == "gone" {
			return push.Retry(retryFull, "try again")
		}
	}
	return answer
}

// hopelessTries is how often a service has to fail before it can be hopeless: devices
// that are awake are told nothing, so a second failure may be weeks after the first.
const hopelessTries = 10

// hopeless reports whether a registration's own service has failed for too long. Apple
// and Google, which all registrations of their kind have in common, say themselves
// when one has ended; what else fails there may be our key, or our way to them.
func (s *service) hopeless(r *registration) bool {
	return r.kind == kindWebPush && r.failures >= hopelessTries && r.failingSince > 0 && s.env.Clock.Now().Sub(time.UnixMicro(r.failingSince)) > s.cfg.GiveUp
}

// pause before the next try, longer after each.
func pause(failures int) time.Duration { return min(30*time.Second<<min(failures, 10), time.Hour) }
