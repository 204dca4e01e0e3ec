package inbox

import (
	"context"
	"fmt"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins/archive"
	"parley/plugins/message/kinds"
	"parley/processor"
	"parley/storage"
)

// putMark moves a mark forward, never back (XEP-0490 §5.1, XEP-0333 §5).
var putMark = storage.Stmt{
	Name:       "inbox.mark",
	SQL:        `INSERT INTO inbox_mark (owner, peer, id) VALUES ($1, $2, $3) ON CONFLICT (owner, peer) DO UPDATE SET id = excluded.id WHERE inbox_mark.id < excluded.id`,
	Idempotent: true,
}

// Read tells that an account's devices have shown everything of a conversation up
// to the message with that stanza-id, which the account's archive has given, or the
// room's (XEP-0490 §4.2). One that is not there is ignored (XEP-0490 §5.1).
func (b *Inbox) Read(ctx context.Context, account, conversation jid.JID, stanzaID string) error {
	id, ok := b.archive.DecodeID(stanzaID)
	if !ok {
		return nil
	}
	room, err := b.belongs(ctx, account, conversation)
	if err != nil {
		return err
	}
	in := account
	if room {
		in = conversation
	}
	some, err := b.archive.Get(ctx, in, []int64{id})
	if err != nil || len(some) == 0 {
		return err
	}
	if st := some[0].Stanza; st.From.Bare() != conversation.Bare() && st.To.Bare() != conversation.Bare() {
		return nil
	}
	return b.mark(ctx, account, conversation, id)
}

func (b *Inbox) mark(ctx context.Context, account, conversation jid.JID, id int64) error {
	var w storage.WriteSet
	marks(w.Add, account, conversation, id)
	if err := b.env.DB.Commit(ctx, &w); err != nil {
		return fmt.Errorf("read mark: %w", err)
	}
	return nil
}

// marks adds what makes a conversation read up to an id.
func marks(add func(*storage.Stmt, ...any), account, conversation jid.JID, id int64) {
	add(&putMark, account.String(), conversation.String(), id)
	add(&dropMentions, account.String(), conversation.String(), id)
}

// outgoing marks what a marker says that is in no archive, because its sender
// wants so; others are counted when they are come by. What its sender has read is
// so whether the other side takes the marker or not.
func (p *part) outgoing(ctx context.Context, f *processor.Flow) (processor.Verdict, error) {
	if f.Kind != stanza.Message || f.Type == stanza.TypeGroupchat || !f.Has(nsMarkers, "displayed") {
		return processor.Continue, nil
	}
	k := kinds.Of(f.Stanza)
	id, ok := marked(f.Stanza)
	if !ok || !k.Has(kinds.NoStore|kinds.NoPermanentStore) {
		return processor.Continue, nil
	}
	peer, ok := conversation(k, f.To)
	if !ok {
		return processor.Continue, nil
	}
	account := f.Session.JID.Bare()
	row, _, err := p.seek(ctx, account, &chat{peer: peer}, id, 0)
	if err == nil && row != 0 {
		err = p.mark(ctx, account, peer, row)
	}
	if err != nil { // the marker goes on to whom it is for
		p.env.Log.Warn("read mark not kept", "account", account.String(), "err", err)
	}
	return processor.Continue, nil
}

// applyMarks counts anew what was counted with an older mark.
func (p *part) applyMarks(ctx context.Context, b *box) error {
	for peer, id := range b.marks {
		c := b.chats[peer]
		if c == nil || id <= c.seen {
			continue
		}
		c.seen, c.unread, c.changed = id, 0, true
		if id >= c.last {
			continue
		}
		if err := p.back(ctx, b.account, c, b.upto+1, func(_ archive.Message, says bool) bool {
			if says {
				c.unread++
			}
			return true
		}); err != nil {
			return err
		}
	}
	return nil
}
