package muc

import (
	"testing"

	"parley/storage"
	"parley/storage/storagetest"
)

// However many rooms there are, a page of the public ones is read from an index
// (XEP-0045 §6.3).
func TestPagesOfRoomsAreReadFromAnIndex(t *testing.T) {
	storagetest.Each(t, func(t *testing.T, db storage.DB) {
		if err := db.Migrate(t.Context(), Name, migrations); err != nil {
			t.Fatal(err)
		}
		storagetest.Pages(t, db, sqlListed, "rooms.localhost", "", 10)
		storagetest.Pages(t, db, sqlListedBefore, "rooms.localhost", "z", 10)
		storagetest.Pages(t, db, sqlListedLast, "rooms.localhost", 10)
		storagetest.Pages(t, db, sqlSeated, "garden@rooms.localhost", "ann@localhost/a", 10)
	})
}
