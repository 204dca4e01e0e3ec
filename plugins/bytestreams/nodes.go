package bytestreams

import (
	"context"
	"crypto/rand"
	"errors"
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

	tasks sync.WaitGroup

	mu     sync.Mutex
	ended  bool
	asking map[string]struct{}  // accounts for which the others are asked
	open   map[string]*question // by its id
}

// question is what the other nodes are asked.
type question struct {
	said map[string]struct{}
	done context.CancelFunc // it has its answer
}

// maxAsking bounds how many accounts' questions are open.
const maxAsking = 32

func newNodes(env plugins.Env, t *table) *nodes {
	n := &nodes{env: env, table: t, asking: map[string]struct{}{}, open: map[string]*question{}}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	env.OnForget(topicActivate, n.asked)
	env.OnForget(topicActivated, n.told)
	return n
}

// stop ends what is asked and answered.
func (n *nodes) stop() {
	n.mu.Lock()
	n.ended = true
	n.mu.Unlock()
	n.cancel()
	n.tasks.Wait()
}

// ask runs f beside what else the account does, then tell: whoever hears the answer may
// ask again. False: as much is asked as may be.
func (n *nodes) ask(account string, f func() (tell func())) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, busy := n.asking[account]; busy || n.ended || len(n.asking) >= maxAsking {
		return false
	}
	n.asking[account] = struct{}{}
	n.tasks.Go(func() {
		tell := f()
		n.mu.Lock()
		delete(n.asking, account)
		n.mu.Unlock()
		tell()
	})
	return true
}

// activate lets another node do it. Without one the error is here's, or errAlone when
// each node has one of the connections at most.
func (n *nodes) activate(destination, account string, here error) error {
	ctx, cancel := context.WithTimeout(n.ctx, answerWithin)
	defer cancel()
	id, q := rand.Text(), &question{map[string]struct{}{}, cancel}
	n.mu.Lock()
	n.open[id] = q
	n.mu.Unlock()
	err := n.env.Notices.Ask(ctx, "", topicActivate, strings.Join([]string{n.env.Node, id, destination, account}, " "))
	n.mu.Lock()
	said := q.said // nobody adds to it from here on
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
		if !errors.Is(err, o.err) {
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
	q := n.open[id]
	if q == nil {
		return
	}
	q.said[word] = struct{}{}
	if word == outcomes[0].word {
		q.done()
	}
}
