package captcha

import (
	"crypto/rand"
	"time"

	"parley/plugins"
	"parley/plugins/register"
)

// open are the challenges that wait for their answers, one of a stream.
type open struct{ *register.PerStream[challenge] }

type challenge struct {
	domain   string
	id       string // 130 bits
	question question
	passed   bool
}

func newOpen(clock plugins.Clock, ttl time.Duration) open {
	return open{register.NewPerStream[challenge](clock, ttl)}
}

// add opens a challenge of a stream in the place of the one before.
func (o open) add(a register.Applicant, q question) (id string) {
	id = rand.Text()
	o.Put(a.Stream, challenge{domain: a.Domain, id: id, question: q})
	return id
}

// take returns the challenge of a stream with that id. One that was not passed is over:
// it is answered once.
func (o open) take(a register.Applicant, id string) (q question, passed, ok bool) {
	o.Look(a.Stream, func(c challenge) (stays bool) {
		if c.id != id || c.domain != a.Domain {
			return true
		}
		q, passed, ok = c.question, c.passed, true
		return c.passed
	})
	return q, passed, ok
}

// pass notes that a challenge which was taken was answered well: from now on as long
// again, unless another form was asked for meanwhile.
func (o open) pass(a register.Applicant, id string) {
	o.PutNew(a.Stream, challenge{domain: a.Domain, id: id, passed: true})
}
