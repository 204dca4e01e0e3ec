package resumption

import "context"

// Sweep ends what nobody comes for, given the plugin's contract.
func Sweep(ctx context.Context, contract any) error { return contract.(*book).sweepOnce(ctx) }
