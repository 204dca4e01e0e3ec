package storage_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"parley/storage"
	"parley/storage/storagetest"
)

// A handler that panics inside of a transaction costs its own transaction, not
// the database (reliability row 38).
func TestTxPanics(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		ctx := context.Background()
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic is gone")
				}
			}()
			_ = db.Tx(ctx, func(tx storage.Tx) error {
				if _, err := tx.Exec(ctx, `INSERT INTO parley_meta (key, value) VALUES ($1, $2)`, "half", []byte("x")); err != nil {
					t.Error(err)
				}
				panic("handler")
			})
		}()
		var n int
		if err := db.QueryRow(ctx, `SELECT COUNT(*) FROM parley_meta WHERE key = $1`, "half").Scan(&n); err != nil || n != 0 {
			t.Errorf("%d rows of the broken transaction: %v", n, err)
		}
		if err := db.Ping(ctx); err != nil {
			t.Errorf("nobody can write any more: %v", err)
		}
	})
}

// Whoever gives up a transaction in the middle does not spoil the next one.
func TestTxGivenUp(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		ctx, stop := context.WithTimeout(context.Background(), time.Minute)
		defer stop()
		var wg sync.WaitGroup
		defer wg.Wait()
		done := make(chan struct{})
		defer close(done)
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				giving, up := context.WithCancel(ctx)
				err := db.Tx(giving, func(tx storage.Tx) error {
					if _, err := tx.Exec(giving, `UPDATE parley_meta SET value = value WHERE key = $1`, "ping"); err != nil {
						return err
					}
					up()
					_, err := tx.Exec(giving, `UPDATE parley_meta SET value = value WHERE key = $1`, "ping")
					return err
				})
				up()
				if !errors.Is(err, context.Canceled) {
					t.Errorf("given up: %v", err)
					return
				}
			}
		})
		for range 2000 {
			if err := db.Ping(ctx); err != nil {
				t.Fatalf("a stranger pays: %v", err)
			}
		}
	})
}
