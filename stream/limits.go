package stream

import (
	"strconv"
	"time"

	"parley/parser/stanza"
)

// nsLimits is the namespace of XEP-0478.
const nsLimits = "urn:xmpp:stream-limits:0"

func limitsFeature() Feature {
	return Feature{In: Fresh | Secured | Authenticated | Established, Order: orderLimits, Advertise: advertiseLimits}
}

// advertiseLimits tells what this stream may send (XEP-0478 §3.1). Limits
// change with the login, and so does what is announced.
func advertiseLimits(c *Conn) *stanza.Element {
	size, idle := c.srv.cfg.Limits.PreAuth, c.srv.cfg.Timeouts.Login
	if c.phase >= Authenticated {
		size, idle = c.srv.cfg.Limits.Stanza, c.srv.cfg.Timeouts.Idle
	}
	el := stanza.El(nsLimits, "limits").
		Add(stanza.El(nsLimits, "max-bytes").AddText(strconv.FormatInt(int64(size), 10)))
	if idle >= time.Second {
		el.Add(stanza.El(nsLimits, "idle-seconds").AddText(strconv.Itoa(int(idle / time.Second))))
	}
	return el
}
