package archive

import (
	"context"
	"fmt"

	"parley/storage"
)

// reached is the mark that ids have never come beyond.
func reached(ctx context.Context, q storage.Querier) (mark int64, err error) {
	if err = q.QueryRow(ctx, `SELECT COALESCE(MAX(mark), 0) FROM archive_mark`).Scan(&mark); err != nil {
		return 0, fmt.Errorf("archive mark: %w", err)
	}
	return mark, nil
}

// markOf is the higher one of two marks.
func markOf(ctx context.Context, q storage.Querier, a, b int64) (mark int64, err error) {
	if err = q.QueryRow(ctx, `SELECT COALESCE(MAX(mark), 0) FROM archive_mark WHERE id IN ($1, $2)`, a, b).Scan(&mark); err != nil {
		return 0, fmt.Errorf("archive mark: %w", err)
	}
	return mark, nil
}

// restored raises the mark: clients keep ids as positions in their archives
// (XEP-0313 §3.5), so none is given a second time, even with a clock that went
// back.
func restored(ctx context.Context, tx storage.Tx, reached int64) error {
	_, err := tx.Exec(ctx, raiseMark.SQL, onlyMark, reached)
	return err
}
