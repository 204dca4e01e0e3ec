package carbons

import (
	"fmt"
	"hash/maphash"
	"time"

	"github.com/maypok86/otter/v2"

	"parley/parser/jid"
	"parley/parser/stanza"
)

// answers remembers for a while what was sent and copied, so that an error
// that comes back is copied to the same devices (§6.1). It is bounded; what is
// forgotten is seen by the sending device alone.
type answers struct {
	seed  maphash.Seed
	until *otter.Cache[uint64, struct{}]
}

const (
	answersKept = 50_000
	answersTTL  = 10 * time.Minute
)

func newAnswers() (*answers, error) {
	c, err := otter.New(&otter.Options[uint64, struct{}]{
		MaximumSize:      answersKept,
		ExpiryCalculator: otter.ExpiryWriting[uint64, struct{}](answersTTL),
	})
	if err != nil {
		return nil, fmt.Errorf("carbons: %w", err)
	}
	return &answers{seed: maphash.MakeSeed(), until: c}, nil
}

func (a *answers) key(sender, contact jid.JID, id string) uint64 {
	var h maphash.Hash
	h.SetSeed(a.seed)
	for _, s := range [...]string{sender.String(), contact.Bare().String(), id} {
		_, _ = h.WriteString(s)
		_ = h.WriteByte(0)
	}
	return h.Sum64()
}

func (a *answers) expect(st *stanza.Stanza) {
	if st.ID != "" {
		a.until.Set(a.key(st.From, st.To, st.ID), struct{}{})
	}
}

func (a *answers) expected(st *stanza.Stanza) bool {
	_, ok := a.until.GetIfPresent(a.key(st.To, st.From, st.ID))
	return ok
}
