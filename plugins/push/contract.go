package push

import (
	"strconv"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/processor"
)

// NSHouse is the namespace of what passes between this server and a push service
// that belongs to it.
const NSHouse = "parley:push:0"

// Telling fires before a push service is told: whose service it is adds to the
// notification what it alone may know.
var Telling = processor.NewHook[*Notice]("push-telling")

// Notice is what a push service is about to be told.
type Notice struct {
	Service      jid.JID
	Calls        int             // of the messages that wait
	Notification *stanza.Element // XEP-0357 §7: what is told
}

// maxRetry bounds how long a service may put off.
const maxRetry = time.Hour

// Retry is the error by which a push service lets itself be told later without
// having failed: it is not disabled for that.
func Retry(after time.Duration, text string) *stanza.Error {
	e := stanza.NewError(stanza.ResourceConstraint, text)
	seconds := (min(after, maxRetry) + time.Second - 1) / time.Second
	e.App = stanza.El(NSHouse, "retry").With("after", strconv.Itoa(max(int(seconds), 1)))
	return e
}
