package bytestreams

import (
	"context"
	"crypto/rand"
	"strings"
	"sync"
	"time"

	"parley/plugins"
)

// What nodes tell each other: a requester's stanza may come to another one than the
// two connections.
const (
	topicActivate  = "bytestreams-activate"  // NODE ID DESTINATION ACCOUNT
	topicActivated = "bytestreams-activated" // ID OUTCOME
)

// answerWithin is how long the other nodes have.
const answerWithin = 5 * time.Second

// outcomes are what a node says that knows the bytestream, from the best to the worst.
var outcomes = []struct {
	word string
	err  error
}{{"active", nil}, {"many", errMany}, {"full", errFull}, {"alone", errAlone}}

// nodes reaches the connections at other nodes.
type nodes struct {
	env    plugins.Env
	table  *table
	ctx    context.Context
	cancel context.CancelFunc

	mu   sync.Mutex
	open map[string]map[string]struct{} // what was said of each question, by its id
}

func newNodes(env plugins.Env, t *table) *nodes {
	n := &nodes{env: env, table: t, open: map[string]map[string]struct{}{}}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	env.OnForget(topicActivate, n.asked)
	env.OnForget(topicActivated, n.told)
	return n
}

// stop ends what is asked and answered.
func (n *nodes) stop() { n.cancel() }

// activate lets another node do it. Without one the error is here's, or errAlone when
// each node has one of the connections at most.
func (n *nodes) activate(ctx context.Context, destination, account string, here error) error {
	if n.env.Notices == nil {
		return here
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	id := rand.Text()
	n.mu.Lock()
	n.open[id] = map[string]struct{}{}
	n.mu.Unlock()
	err := n.env.Notices.Ask(ctx, "", topicActivate, strings.Join([]string{n.env.Node, id, destination, account}, " "))
	n.mu.Lock()
	said := n.open[id]
	delete(n.open, id)
	n.mu.Unlock()
	for _, o := range outcomes {
		if _, ok := said[o.word]; ok {
			return o.err
		}
	}
	if err != nil {
		n.env.Log.Warn("a node does not say whether it has a bytestream", "err", err)
	}
	return here
}

// asked answers another node, if the bytestream is known here.
func (n *nodes) asked(key string) {
	parts := strings.SplitN(key, " ", 4)
	if len(parts) != 4 {
		return
	}
	err := n.table.activate(parts[2], parts[3])
	for _, o := range outcomes {
		if o.err != err {
			continue
		}
		ctx, cancel := context.WithTimeout(n.ctx, answerWithin)
		defer cancel()
		if err := n.env.Notices.Ask(ctx, parts[0], topicActivated, parts[1]+" "+o.word); err != nil {
			n.env.Log.Warn("the node that asks for a bytestream is not told", "node", parts[0], "err", err)
		}
		return
	}
}

// told takes an answer; nobody waits for it any more when it comes late.
func (n *nodes) told(key string) {
	id, word, _ := strings.Cut(key, " ")
	n.mu.Lock()
	defer n.mu.Unlock()
	if said := n.open[id]; said != nil {
		said[word] = struct{}{}
	}
}
