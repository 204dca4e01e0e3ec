package archive

import (
	"context"
	"testing"

	"parley/storage"
	"parley/storage/storagetest"
)

// While the database takes nothing it is asked now and then, not again and
// again: it may be the disk that is full, and each try is a line in the log.
func TestRow31AcksSpareTheDatabase(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		f := newFixture(t, db, *defaults())
		o, err := f.owners.get(context.Background(), juliet)
		if err != nil {
			t.Fatal(err)
		}
		var ids []int64
		for range 2 * ackBatch {
			ids = append(ids, f.ids.Next())
		}
		f.acks.add(o, ids...)
		<-f.acks.wake
		down, cancel := context.WithCancel(context.Background())
		cancel()
		f.acks.flush(down)
		f.acks.add(o, f.ids.Next())
		select {
		case <-f.acks.wake:
			t.Error("it tries again at once")
		default:
		}
		f.acks.flush(context.Background())
		f.acks.add(o, ids...)
		select {
		case <-f.acks.wake:
		default:
			t.Error("it goes on sparing a database that works again")
		}
	})
}
