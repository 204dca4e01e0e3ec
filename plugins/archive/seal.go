package archive

import (
	"errors"

	"parley/storage/atrest"
)

// What of the tables is encrypted, when that is configured: the messages. Who
// wrote to whom and when is not, queries go by it.
var (
	sealedRows    = atrest.Table{Name: "archive", Row: []string{"owner", "id", "peer"}, Content: "stanza", KeyID: "key_id"}
	sealedPending = atrest.Table{Name: "archive_pending", Row: []string{"owner", "id"}, Content: "stanza", KeyID: "key_id"}
)

// opened is the content of a row; nil when it is damaged: that message is lost,
// the others of a page are not.
func (a *Archive) opened(t *atrest.Table, key int64, stored []byte, row ...int64) ([]byte, error) {
	raw, err := a.env.AtRest.Open(t, key, stored, row...)
	if errors.Is(err, atrest.ErrDamaged) {
		a.env.Log.Error("archived message is lost", "err", err)
		return nil, nil
	}
	return raw, err
}
