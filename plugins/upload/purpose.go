package upload

import (
	"slices"
	"time"

	"parley/parser/stanza"
)

// purpose is one of XEP-0363 §5: its files have a bucket of their own.
type purpose struct {
	name string // of the element, and in the database
	of   func(*Config) *Bucket
}

// purposes are all there are; the first one is that of requests which name none.
var purposes = []purpose{
	{"message", func(c *Config) *Bucket { return &c.Message }},
	{"profile", func(c *Config) *Bucket { return &c.Profile }},
	{"ephemeral", func(c *Config) *Bucket { return &c.Ephemeral }},
	{"permanent", func(c *Config) *Bucket { return &c.Permanent }},
}

// ephemeral is the purpose whose requests say when the file has to be gone.
const ephemeral = "ephemeral"

// purposeOf reads what a request says of it, and the time after which nobody may
// get the file; zero: it has not said one.
func purposeOf(req *stanza.Element, now time.Time) (p purpose, until time.Time, err error) {
	p = purposes[0]
	named := false
	for el := range req.Elements() {
		if el.Name.Space != NSPurpose {
			continue
		}
		i := slices.IndexFunc(purposes, func(p purpose) bool { return p.name == el.Name.Local })
		if i < 0 || named {
			return p, until, stanza.NewError(stanza.BadRequest, "a file has one purpose: message, profile, ephemeral or permanent")
		}
		p, named = purposes[i], true
		if p.name != ephemeral {
			continue
		}
		if until, err = time.Parse(time.RFC3339Nano, el.Get("expire-before")); err != nil { // XEP-0363 §5.3, XEP-0082 §3.2
			return p, until, stanza.NewError(stanza.BadRequest, "expire-before is a time of XEP-0082")
		}
		if !until.After(now) {
			return p, until, stanza.NewError(stanza.BadRequest, "expire-before is over")
		}
	}
	return p, until, nil
}

// ends is when a file that is stored now is over; zero: never.
func (b *Bucket) ends(now, until time.Time) time.Time {
	if b.Keep == 0 {
		return until
	}
	end := now.Add(b.Keep)
	if !until.IsZero() && until.Before(end) {
		return until
	}
	return end
}

// largest is the size of the largest file for any purpose; it is what clients are
// told that know nothing of purposes, if it is that of messages.
func (c *Config) largest() int64 { return int64(c.Message.MaxSize) }
