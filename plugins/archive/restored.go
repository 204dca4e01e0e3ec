package archive

import (
	"context"
	"errors"
	"fmt"

	"parley/storage"
)

// reached is the mark that ids have never come beyond.
func reached(ctx context.Context, q storage.Querier) (mark int64, err error) {
	err = q.QueryRow(ctx, `SELECT mark FROM archive_mark WHERE id = $1`, 1).Scan(&mark)
	if errors.Is(err, storage.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("archive mark: %w", err)
	}
	return mark, nil
}

// restored raises the mark: clients keep ids as positions in their archives
// (XEP-0313 §3.5), so none is given a second time, even with a clock that went
// back.
func restored(ctx context.Context, tx storage.Tx, reached int64) error {
	_, err := tx.Exec(ctx, raiseMark.SQL, 1, reached)
	return err
}
