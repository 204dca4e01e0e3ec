package resumption

import (
	"context"

	"parley/parser/jid"
)

// Sweep ends what nobody comes for, given the plugin's contract.
func Sweep(ctx context.Context, contract any) error { return contract.(*book).sweepOnce(ctx) }

// Gone returns when a node is not alive any more for this one.
func Gone(ctx context.Context, contract any, node, account string) error {
	return contract.(*book).env.Notices.Buried(ctx, node, 0, jid.MustParse(account))
}
