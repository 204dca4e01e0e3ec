package stream

import (
	"context"

	"parley/stream/sasl"
)

// sasl2Request is what <authenticate/> asked for besides (XEP-0388 §2.3).
type sasl2Request struct{}

func (c *Conn) sasl2Success(context.Context, *sasl2Request, sasl.Result) error { return nil }
