package pubsub

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"sync"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/parser/stanza/rsm"
	"parley/plugins"
	"parley/storage"
)

// store is the SQL of nodes; that of items is in items.go, that of subscriptions
// in subscriptions.go.
type store struct {
	env   plugins.Env
	seed  maphash.Seed
	turns [256]sync.Mutex // of accounts: who changes nodes of one here is alone
	lines lines           // of nodes: who has changed one tells in order
}

func newStore(env plugins.Env) *store { return &store{env: env, seed: maphash.MakeSeed()} }

const (
	sqlNode              = `SELECT id, name, account, creator, created_at, settings, base, coalesce((SELECT b.id FROM pubsub_node b WHERE b.service = $1 AND b.name = pubsub_node.base), 0) FROM pubsub_node WHERE service = $1 AND name = $2`
	sqlNodes             = `SELECT id, name, account, creator, created_at, settings, base, 0 FROM pubsub_node WHERE service = $1 AND base = ''`
	sqlNodeAffiliations  = `SELECT a.node, a.jid, a.affiliation FROM pubsub_affiliation a JOIN pubsub_node n ON n.id = a.node WHERE n.service = $1 AND n.name = $2`
	sqlNodesAffiliations = `SELECT a.node, a.jid, a.affiliation FROM pubsub_affiliation a JOIN pubsub_node n ON n.id = a.node WHERE n.service = $1 AND n.base = ''`

	sqlCountNodes  = `SELECT count(*) FROM pubsub_node WHERE account = $1 AND (base = '') = $2`
	sqlInsertNode  = `INSERT INTO pubsub_node (id, service, name, account, creator, created_at, settings, base, link, parent, seq, newest, items, bytes) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, 0, 0, 0) ON CONFLICT DO NOTHING`
	sqlConfigure   = `UPDATE pubsub_node SET settings = $2, link = $3, parent = $4 WHERE id = $1`
	sqlExpireItems = `UPDATE pubsub_item SET expires_at = CASE WHEN at + $2 > at THEN at + $2 ELSE 0 END WHERE node = $1`
	sqlAffiliate   = `INSERT INTO pubsub_affiliation (node, jid, affiliation) VALUES ($1, $2, $3) ON CONFLICT (node, jid) DO UPDATE SET affiliation = excluded.affiliation`
	sqlUnaffiliate = `DELETE FROM pubsub_affiliation WHERE node = $1 AND jid = $2`
	sqlCountAff    = `SELECT count(*) FROM pubsub_affiliation WHERE node = $1`
	sqlCountOwners = `SELECT count(*) FROM pubsub_affiliation WHERE node = $1 AND affiliation = 'owner'`
	// It counts towards the limits of one who owns it.
	sqlCharge = `UPDATE pubsub_node SET account = (SELECT min(jid) FROM pubsub_affiliation WHERE node = $1 AND affiliation = 'owner')
		WHERE id = $1 AND NOT EXISTS (SELECT 1 FROM pubsub_affiliation a WHERE a.node = $1 AND a.affiliation = 'owner' AND a.jid = pubsub_node.account)`
	sqlMyAff = `SELECT n.name, a.affiliation FROM pubsub_affiliation a JOIN pubsub_node n ON n.id = a.node WHERE a.jid = $1 AND n.service = $2 ORDER BY n.name LIMIT $3`

	sqlMoved = `SELECT uri FROM pubsub_moved WHERE service = $1 AND name = $2`
	sqlMove  = `INSERT INTO pubsub_moved (service, name, account, uri, at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (service, name) DO UPDATE SET uri = excluded.uri, account = excluded.account, at = excluded.at`
	// As many as the account may have nodes, the latest.
	sqlMovedLong = `DELETE FROM pubsub_moved WHERE account = $1 AND at < (SELECT min(k.at) FROM (SELECT at FROM pubsub_moved WHERE account = $1 ORDER BY at DESC LIMIT $2) k)`
	sqlUnmoved   = `DELETE FROM pubsub_moved WHERE service = $1 AND name = $2`

	sqlListed     = `SELECT name, settings FROM pubsub_node WHERE service = $1 AND name > $2 AND base = '' ORDER BY name LIMIT $3`
	sqlListedBack = `SELECT name, settings FROM pubsub_node WHERE service = $1 AND name < $2 AND base = '' ORDER BY name DESC LIMIT $3`
	sqlListedLast = `SELECT name, settings FROM pubsub_node WHERE service = $1 AND name >= $2 AND base = '' ORDER BY name DESC LIMIT $3`
)

// sqlDeleteNode are what goes with a node, itself last.
var sqlDeleteNode = []string{
	`DELETE FROM pubsub_item WHERE node = $1`,
	`DELETE FROM pubsub_subscription WHERE node = $1`,
	`DELETE FROM pubsub_affiliation WHERE node = $1`,
	`DELETE FROM pubsub_node WHERE id = $1`,
}

// sqlDeleteDerived are what goes with a node that others derive from.
var sqlDeleteDerived = []string{
	`DELETE FROM pubsub_item WHERE node IN (SELECT id FROM pubsub_node WHERE service = $1 AND base = $2)`,
	`DELETE FROM pubsub_subscription WHERE node IN (SELECT id FROM pubsub_node WHERE service = $1 AND base = $2)`,
	`DELETE FROM pubsub_affiliation WHERE node IN (SELECT id FROM pubsub_node WHERE service = $1 AND base = $2)`,
	`DELETE FROM pubsub_node WHERE service = $1 AND base = $2`,
}

// nodes reads the nodes of a service, without those that derive from others, or the one of that name.
func (s *store) nodes(ctx context.Context, service jid.JID, name string, one bool) ([]*Node, error) {
	text, affs, args := sqlNodes, sqlNodesAffiliations, []any{service.String()}
	if one {
		text, affs, args = sqlNode, sqlNodeAffiliations, append(args, name)
	}
	byID := map[int64]*Node{}
	found, err := storage.All(ctx, s.env.DB, func(r storage.Row) (*Node, error) {
		n := &Node{Address: Address{Service: service}, Affiliations: map[jid.JID]Affiliation{}}
		var account, creator, settings string
		var at int64
		if err := r.Scan(&n.id, &n.Node, &account, &creator, &at, &settings, &n.Base, &n.baseID); err != nil {
			return nil, err
		}
		n.Created = time.UnixMicro(at).UTC()
		byID[n.id] = n
		return n, errors.Join(parseInto(&n.Account, account), parseInto(&n.Creator, creator), n.Settings.decode(settings, n.PEP()))
	}, text, args...)
	if err != nil {
		return nil, fmt.Errorf("nodes of %s: %w", service, err)
	}
	if len(found) == 0 {
		return nil, nil
	}
	rows, err := s.env.DB.Query(ctx, affs, args...)
	if err != nil {
		return nil, fmt.Errorf("affiliations at %s: %w", service, err)
	}
	defer rows.Close()
	for rows.Next() {
		var id int64
		var who, what string
		if err := rows.Scan(&id, &who, &what); err != nil {
			return nil, fmt.Errorf("affiliations at %s: %w", service, err)
		}
		var j jid.JID
		if err := parseInto(&j, who); err != nil {
			return nil, err
		}
		if n := byID[id]; n != nil {
			n.Affiliations[j] = Affiliation(what)
		}
	}
	return found, rows.Err()
}

func parseInto(j *jid.JID, s string) (err error) {
	if *j, err = jid.Parse(s); err != nil {
		return fmt.Errorf("stored address %q: %w", s, err)
	}
	return nil
}

// decode reads stored settings; what they do not name is as for a new node.
func (s *Settings) decode(text string, pep bool) error {
	*s = defaultSettings(pep)
	if err := json.Unmarshal([]byte(text), s); err != nil {
		return fmt.Errorf("settings of a node: %w", err)
	}
	return nil
}

func (s Settings) encode() (string, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return "", fmt.Errorf("settings of a node: %w", err)
	}
	return string(b), nil
}

// fresh makes a node that is not stored yet. Ids are random: nodes of a cluster
// need not agree on them.
func (s *store) fresh(at Address, by jid.JID, set Settings) *Node {
	account := by.Bare()
	if at.PEP() {
		account = at.Service
	}
	return &Node{
		Address: at, Account: account, Creator: by.Bare(), Created: s.env.Clock.Now().UTC(), Settings: set,
		Affiliations: map[jid.JID]Affiliation{account: Owner}, id: newNodeID(),
	}
}

// create is for inside the transaction. Errors: policy-violation; conflict when
// the name is taken.
func (s *store) create(ctx context.Context, tx storage.Tx, n *Node, l *Limits) error {
	settings, err := n.Settings.encode()
	if err != nil {
		return err
	}
	var have int64
	if err := tx.QueryRow(ctx, sqlCountNodes, n.Account.String(), n.Base == "").Scan(&have); err != nil {
		return err
	}
	switch {
	case n.Base == "" && have >= int64(l.Nodes):
		return errLimit(fmt.Sprintf("the account has %d nodes, which is as many as it may have (max_nodes)", have))
	case n.Base != "" && have >= int64(l.Derived):
		return errLimit(fmt.Sprintf("the account has %d nodes that derive from others, which is as many as it may have (max_derived_nodes)", have))
	}
	made, err := tx.Exec(ctx, sqlInsertNode, n.id, n.Service.String(), n.Node, n.Account.String(), n.Creator.String(), n.Created.UnixMicro(), settings, n.Base, n.Settings.Link(), n.Settings.Parent())
	switch {
	case err != nil:
		return err
	case made == 0:
		return stanza.NewError(stanza.Conflict, "")
	}
	for j, a := range n.Affiliations {
		if _, err := tx.Exec(ctx, sqlAffiliate, n.id, j.String(), string(a)); err != nil {
			return err
		}
	}
	_, err = tx.Exec(ctx, sqlUnmoved, n.Service.String(), n.Node)
	return err
}

// configure stores other settings of nodes, all or none; items that are there
// expire by them. The turn is the last one's.
func (s *store) configure(ctx context.Context, nodes ...*Node) (told *turn, err error) {
	n := nodes[len(nodes)-1]
	err = s.tx(ctx, n, func(tx storage.Tx) error {
		for _, n := range nodes {
			settings, err := n.Settings.encode()
			if err != nil {
				return err
			}
			made, err := tx.Exec(ctx, sqlConfigure, n.id, settings, n.Settings.Link(), n.Settings.Parent())
			switch {
			case err != nil:
				return err
			case made == 0:
				return errNoNode()
			}
			if _, err = tx.Exec(ctx, sqlExpireItems, n.id, n.Settings.lifetime()); err != nil {
				return err
			}
		}
		return nil
	}, func() { told = s.lines.enter(n) })
	return told, err
}

// lifetime of an item in microseconds; 0: it does not end.
func (s *Settings) lifetime() int64 {
	if s.ItemExpire == Max {
		return 0
	}
	return int64(s.ItemExpire) * int64(time.Second/time.Microsecond)
}

// affiliate stores affiliations. Errors: policy-violation; errLastOwner.
func (s *store) affiliate(ctx context.Context, n *Node, change map[jid.JID]Affiliation, l *Limits) error {
	return s.tx(ctx, n, func(tx storage.Tx) error {
		for j, a := range change {
			var err error
			if a == None {
				_, err = tx.Exec(ctx, sqlUnaffiliate, n.id, j.String())
			} else {
				_, err = tx.Exec(ctx, sqlAffiliate, n.id, j.String(), string(a))
			}
			if err != nil {
				return err
			}
		}
		var all, owners int64
		if err := tx.QueryRow(ctx, sqlCountAff, n.id).Scan(&all); err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, sqlCountOwners, n.id).Scan(&owners); err != nil {
			return err
		}
		switch {
		case owners == 0:
			return errLastOwner
		case all > int64(l.Affiliations):
			return errLimit(fmt.Sprintf("a node has at most %d affiliated addresses (max_affiliations)", l.Affiliations))
		}
		_, err := tx.Exec(ctx, sqlCharge, n.id)
		return err
	})
}

// errLastOwner says that a node would be nobody's (XEP-0060 §8.9.2.4).
var errLastOwner = errors.New("a node needs an owner")

// remove deletes a node and its branch; uri is where it is now, or "". The turns
// are the branch's, and the node's at the end.
func (s *store) remove(ctx context.Context, n *Node, uri string, l *Limits, branch ...*Node) (told []*turn, err error) {
	all := append(branch, n)
	err = s.tx(ctx, n, func(tx storage.Tx) error {
		if uri != "" {
			if _, err := tx.Exec(ctx, sqlMove, n.Service.String(), n.Node, n.Account.String(), uri, s.now()); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, sqlMovedLong, n.Account.String(), l.Nodes); err != nil {
				return err
			}
		}
		for _, m := range all {
			if err := deleteNode(ctx, tx, m); err != nil {
				return err
			}
		}
		return nil
	}, func() {
		for _, m := range all {
			told = append(told, s.lines.enter(m))
		}
	})
	return told, err
}

// deleteNode deletes a node and what derives from it.
func deleteNode(ctx context.Context, tx storage.Tx, n *Node) error {
	for _, text := range sqlDeleteDerived {
		if _, err := tx.Exec(ctx, text, n.Service.String(), n.Node); err != nil {
			return err
		}
	}
	for _, text := range sqlDeleteNode {
		if _, err := tx.Exec(ctx, text, n.id); err != nil {
			return err
		}
	}
	return nil
}

// moved tells where a node that is not there any more has gone; "": it never
// was there, or nobody has said.
func (s *store) moved(ctx context.Context, at Address) (uri string, err error) {
	err = s.env.DB.QueryRow(ctx, sqlMoved, at.Service.String(), at.Node).Scan(&uri)
	if errors.Is(err, storage.ErrNoRows) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("node %s: %w", at.Node, err)
	}
	return uri, nil
}

// tx is a transaction about a node. Those of one account come one after the other,
// as far as they come from here: Postgres would let all but one begin anew, and
// gives up in the end. What is committed is followed by then, before the next one.
func (s *store) tx(ctx context.Context, n *Node, f func(storage.Tx) error, then ...func()) error {
	turn := &s.turns[maphash.String(s.seed, n.Account.String())%uint64(len(s.turns))]
	turn.Lock()
	defer turn.Unlock()
	if err := s.env.DB.Tx(ctx, f); err != nil {
		return fmt.Errorf("node %s of %s: %w", n.Node, n.Service, err)
	}
	for _, next := range then {
		next()
	}
	return nil
}

// affiliationsOf lists what an address, bare, is to the nodes of a service, by
// their names; at most limit.
func (s *store) affiliationsOf(ctx context.Context, service, bare jid.JID, limit int) (names []string, affs []Affiliation, err error) {
	rows, err := s.env.DB.Query(ctx, sqlMyAff, bare.String(), service.String(), limit)
	if err != nil {
		return nil, nil, fmt.Errorf("affiliations of %s: %w", bare, err)
	}
	defer rows.Close()
	for rows.Next() {
		var name, a string
		if err := rows.Scan(&name, &a); err != nil {
			return nil, nil, fmt.Errorf("affiliations of %s: %w", bare, err)
		}
		names, affs = append(names, name), append(affs, Affiliation(a))
	}
	return names, affs, rows.Err()
}

// listed is a node for service discovery.
type listed struct {
	name     string
	settings Settings
}

// list returns a page of a service's nodes, in the database's order of names.
func (s *store) list(ctx context.Context, service jid.JID, q *rsm.Request, limit int) ([]listed, error) {
	text, name := sqlListed, ""
	if q != nil {
		name = q.After
		if q.Backward {
			text, name = sqlListedBack, q.Before
			if name == "" {
				text = sqlListedLast
			}
		}
	}
	out, err := storage.All(ctx, s.env.DB, func(r storage.Row) (l listed, err error) {
		var settings string
		if err := r.Scan(&l.name, &settings); err != nil {
			return l, err
		}
		return l, l.settings.decode(settings, service.Local() != "")
	}, text, service.String(), name, limit)
	if err != nil {
		return nil, fmt.Errorf("nodes of %s: %w", service, err)
	}
	if q != nil && q.Backward {
		slices.Reverse(out)
	}
	return out, nil
}

// newNodeID is what a node is called in the database: positive, and never again another's.
func newNodeID() int64 {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return int64(binary.BigEndian.Uint64(b[:])>>2) + 1 //nolint:gosec // 62 bits
}
