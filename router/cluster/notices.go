package cluster

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"parley/router/channel"
	"parley/router/channel/nats"
)

// noticeWait is how long a notice waits for a node that does not answer: as
// long as one may take to be known for dead, after which it remembers nothing.
const noticeWait = 10 * time.Second

// TopicMissed is told, with an account or "" for all, when something may not
// have reached sessions.
const TopicMissed = "missed"

// noticeBoard is what is done when something is to be forgotten, by topic.
type noticeBoard struct {
	mu  sync.Mutex
	all map[string][]func(key string)
}

// On lets f be called with every key that another node tells of under the
// topic.
func (n *Node) On(topic string, f func(key string)) {
	n.notices.mu.Lock()
	defer n.notices.mu.Unlock()
	if n.notices.all == nil {
		n.notices.all = map[string][]func(string){}
	}
	n.notices.all[topic] = append(n.notices.all[topic], f)
}

// Tell lets every other live node forget what it remembers of the key, and
// returns when they have. A node that does not answer in time is reported: it
// may use what it remembers until it is dead or hears of it.
func (n *Node) Tell(ctx context.Context, topic, key string) error {
	return n.tell(ctx, n.others(), topic, key)
}

// tell is Tell for some nodes.
func (n *Node) tell(ctx context.Context, peers []string, topic, key string) error {
	if len(peers) == 0 {
		return nil
	}
	payload := encodeNotice(topic, key)
	ctx, cancel := context.WithTimeout(ctx, noticeWait)
	defer cancel()
	forgotten, all := awaited() // also by one that is gone: it remembers nothing
	var silent peerSet
	var failed error
	for _, p := range peers {
		forgotten.expect()
		silent.add(p)
		came := func(err error) {
			silent.remove(p)
			forgotten.came(err)
		}
		if err := n.bus.Send(ctx, p, portNotices, payload, came); err != nil {
			if !errors.Is(err, nats.ErrGone) {
				failed = fmt.Errorf("%s is not told to forget: %w", p, err)
			}
			came(err)
		}
	}
	forgotten.sent()
	select {
	case <-all:
		if failed == nil && forgotten.refused.Load() {
			failed = fmt.Errorf("told to forget: %w", nats.ErrRefused)
		}
		return failed
	case <-ctx.Done():
		return fmt.Errorf("%s does not say that it has forgotten: %w", strings.Join(silent.list(), ", "), ctx.Err())
	}
}

func encodeNotice(topic, key string) []byte {
	b := binary.AppendUvarint(nil, uint64(len(topic)))
	return append(append(b, topic...), key...)
}

// decodeNotice takes apart what encodeNotice has made.
func decodeNotice(s string) (topic, key string, ok bool) {
	size, k := binary.Uvarint([]byte(s))
	if k <= 0 || size > uint64(len(s)-k) {
		return "", "", false
	}
	return s[k : k+int(size)], s[k+int(size):], true
}

// noticed is the handler of what others tell.
func (n *Node) noticed(_ context.Context, from nats.Peer, payload []byte) error {
	topic, key, ok := decodeNotice(string(payload))
	if !ok {
		return refused(from, channel.ErrWire)
	}
	if topic == topicLeaving { // it is about who says it
		n.parted(from)
		return nil
	}
	n.notice(topic, key)
	return nil
}

// notice does here what is to be done about the key.
func (n *Node) notice(topic, key string) {
	n.notices.mu.Lock()
	todo := n.notices.all[topic]
	n.notices.mu.Unlock()
	for _, f := range todo {
		f(key)
	}
}
