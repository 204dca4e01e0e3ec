package accounts

import (
	"context"
	"errors"
	"fmt"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/processor"
	"parley/router/channel"
	"parley/router/sessions"
	"parley/stream/sasl"
)

// Create makes an account. Errors: ErrName, ErrPassword, ErrExists, ErrBusy.
func (a *Accounts) Create(ctx context.Context, j jid.JID, password string) error {
	if err := a.check(j); err != nil {
		return err
	}
	if st, err := a.state(ctx, j); err == nil && (st == live || st == disabled) { // before the costly part
		return ErrExists
	}
	keys, err := a.derive(ctx, password)
	if err != nil {
		return err
	}
	err = a.store.insert(ctx, j, a.env.Clock.Now(), keys)
	if errors.Is(err, errTombstone) {
		if err = a.release(ctx, j); err == nil {
			err = a.store.insert(ctx, j, a.env.Clock.Now(), keys)
		}
	}
	if errors.Is(err, errTombstone) {
		return ErrExists
	}
	if err != nil {
		return err
	}
	a.changed(ctx, j)
	a.log.Info("account created", "account", j.String())
	if err := a.created(context.WithoutCancel(ctx), j); err != nil {
		a.log.Error("account created, and not every feature knows", "account", j.String(), "err", err)
	}
	return nil
}

// callCreated is created, told by a front.
const callCreated = "accounts.created"

// created lets features know of a new account.
func (a *Accounts) created(ctx context.Context, j jid.JID) error {
	if a.env.Front() {
		ctx, cancel := context.WithTimeout(ctx, createdLimit)
		defer cancel()
		_, err := a.env.Halves.CallCore(ctx, callCreated, []byte(j.String()))
		return err
	}
	house := a.house.Load()
	if house == nil {
		return nil
	}
	_, err := processor.Fire(ctx, house, processor.AccountCreated, j)
	return err
}

// createdLimit is how long a front waits for features to hear of an account.
const createdLimit = 5 * time.Second

func (a *Accounts) answerCreated(ctx context.Context, _ string, payload []byte) ([]byte, error) {
	j, err := jid.Parse(string(payload))
	if err != nil {
		return nil, fmt.Errorf("account: %w", err)
	}
	return nil, a.created(ctx, j)
}

// derive makes the keys of both hashes, each with a salt of its own.
func (a *Accounts) derive(ctx context.Context, password string) ([]sasl.Keys, error) {
	if _, err := sasl.PreparePassword(password); err != nil {
		return nil, err
	}
	var keys []sasl.Keys
	var err error
	busy := a.pool.Do(ctx, func() {
		for _, h := range [...]sasl.Hash{sasl.SHA1, sasl.SHA256} {
			k, failed := sasl.Derive(password, sasl.NewSalt(), int(a.iterations.Load()), h)
			keys, err = append(keys, k), errors.Join(err, failed)
		}
	})
	return keys, errors.Join(busy, err)
}

// SetPassword changes the password and revokes every FAST token. Sessions go
// on. Errors: ErrName, ErrPassword, ErrUnknown, ErrBusy.
func (a *Accounts) SetPassword(ctx context.Context, j jid.JID, password string) error {
	if err := a.check(j); err != nil {
		return err
	}
	keys, err := a.derive(ctx, password)
	if err != nil {
		return err
	}
	err = a.store.replaceKeys(ctx, j, a.env.Clock.Now(), keys)
	a.changed(ctx, j) // it may be committed whatever came back
	if err != nil {
		return err
	}
	a.log.Info("password changed", "account", j.String())
	return nil
}

// PasswordSince is when the password was last changed, or the account made. Errors: ErrUnknown.
func (a *Accounts) PasswordSince(ctx context.Context, j jid.JID) (time.Time, error) {
	return a.store.passwordSince(ctx, j)
}

// strengthen is SetPassword with the password that there is: tokens stay, and
// nothing happens when it was changed meanwhile.
func (a *Accounts) strengthen(ctx context.Context, j jid.JID, password string, old sasl.Keys) error {
	keys, err := a.derive(ctx, password)
	if err != nil {
		return err
	}
	err = a.store.swapKeys(ctx, j, old, keys)
	a.changed(ctx, j)
	return err
}

// Disable keeps an account from being used and ends its sessions. It still
// receives: messages are stored as for anybody who is offline. Errors:
// ErrName, ErrUnknown.
func (a *Accounts) Disable(ctx context.Context, j jid.JID) error {
	if err := a.setDisabled(ctx, j, a.env.Clock.Now()); err != nil {
		return err
	}
	a.close(context.WithoutCancel(ctx), a.sessions(j)...)
	a.log.Info("account disabled", "account", j.String())
	return nil
}

// Enable undoes Disable. Errors: ErrName, ErrUnknown.
func (a *Accounts) Enable(ctx context.Context, j jid.JID) error {
	if err := a.setDisabled(ctx, j, time.Time{}); err != nil {
		return err
	}
	a.log.Info("account enabled", "account", j.String())
	return nil
}

func (a *Accounts) setDisabled(ctx context.Context, j jid.JID, since time.Time) error {
	if err := a.check(j); err != nil {
		return err
	}
	err := a.store.setDisabled(ctx, j, since)
	a.changed(ctx, j) // it may be committed whatever came back
	return err
}

// Delete ends an account (see the package comment). When it returns nobody can
// use the account or reach it; an account with sessions is forgotten when they
// have ended, within seconds. What a feature cannot forget now is tried again
// until it can. Errors: ErrName, ErrUnknown.
func (a *Accounts) Delete(ctx context.Context, j jid.JID) error {
	if err := a.mark(ctx, j); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx) // there is no way back
	going := a.sessions(j)
	a.close(ctx, going...)
	if len(going) == 0 {
		if err := a.forget(ctx, j); err != nil {
			a.log.Error("deleted account is not forgotten yet", "account", j.String(), "err", err)
		}
	}
	return nil
}

// DeleteOwn deletes the account that sent f: it is told first, then its
// sessions end (XEP-0077 §3.2). Errors: as Delete.
func (a *Accounts) DeleteOwn(ctx context.Context, f *processor.Flow) error {
	j := f.Session.JID.Bare()
	if err := a.mark(ctx, j); err != nil {
		return err
	}
	reply := f.Reply(nil)
	f.Send(&channel.Envelope{Kind: channel.Route, Raw: reply.Raw, Stanza: reply})
	going := a.sessions(j)
	for _, ref := range going {
		if ref.Node == a.env.Node {
			a.closing.add(ref)
		}
	}
	f.Send(&channel.Envelope{Kind: channel.Close, To: going, Reason: string(stanza.StreamNotAuthorized)})
	return nil
}

// mark makes the account unusable, in the table and in the cache.
func (a *Accounts) mark(ctx context.Context, j jid.JID) error {
	if err := a.check(j); err != nil {
		return err
	}
	err := a.store.mark(ctx, j, a.env.Clock.Now())
	a.changed(ctx, j) // it may be committed whatever came back
	if err != nil {
		return err
	}
	a.log.Info("account deleted", "account", j.String())
	return nil
}

// errNoProcessor says that features cannot be told here and now.
var errNoProcessor = errors.New("no processor runs here")

// forget lets every feature drop what it keeps of the account.
func (a *Accounts) forget(ctx context.Context, j jid.JID) error {
	house := a.house.Load()
	if house == nil {
		return fmt.Errorf("account %s: %w; it is forgotten where and when one does", j, errNoProcessor)
	}
	if _, err := processor.Fire(ctx, house, processor.AccountRemoved, j); err != nil {
		return fmt.Errorf("forget account %s: %w", j, err)
	}
	return nil
}

// release is the last step of an account's end, for whoever wants its name.
// Errors: errTombstone while it has sessions or cannot be forgotten.
func (a *Accounts) release(ctx context.Context, j jid.JID) error {
	t, err := a.store.tombstone(ctx, j)
	if err != nil || t.at == 0 {
		return err
	}
	if a.env.Front() {
		if _, err := a.env.Halves.CallCore(ctx, callRelease, []byte(j.String())); err != nil {
			return fmt.Errorf("%w: %w", errTombstone, err)
		}
		return nil
	}
	return a.bury(ctx, t)
}

// callRelease is release, asked by a front: features forget where the processor
// is.
const callRelease = "accounts.release"

func (a *Accounts) answerRelease(ctx context.Context, _ string, payload []byte) ([]byte, error) {
	j, err := jid.Parse(string(payload))
	if err != nil {
		return nil, fmt.Errorf("account: %w", err)
	}
	return nil, a.release(ctx, j)
}

// bury forgets once more and gives the name free.
func (a *Accounts) bury(ctx context.Context, t tombstone) error {
	if going := a.sessions(t.jid); len(going) > 0 {
		a.close(ctx, going...)
		return errTombstone
	}
	if err := a.forget(ctx, t.jid); err != nil {
		a.log.Error("deleted account is not forgotten yet", "account", t.jid.String(), "err", err)
		return errTombstone
	}
	if err := a.store.erase(ctx, t); err != nil {
		return err
	}
	a.changed(ctx, t.jid)
	return nil
}

func (a *Accounts) sessions(j jid.JID) []sessions.Ref {
	var out []sessions.Ref
	for _, e := range a.env.Sessions.Account(j) {
		out = append(out, e.Ref)
	}
	return out
}

// close ends streams; from now on what they send counts for nothing.
func (a *Accounts) close(ctx context.Context, going ...sessions.Ref) {
	house := a.house.Load()
	if house == nil {
		return
	}
	for _, ref := range going {
		if ref.Node != a.env.Node {
			continue // its own node hears of the change
		}
		a.closing.add(ref)
		if e, ok := a.env.Sessions.Find(ref.JID); !ok || e.Ref != ref { // it has just left
			a.closing.remove(ref)
		}
	}
	house.Close(ctx, stanza.StreamNotAuthorized, going...)
}

// Show describes an account. Errors: ErrName, ErrUnknown.
func (a *Accounts) Show(ctx context.Context, j jid.JID) (Account, error) {
	if err := a.check(j); err != nil {
		return Account{}, err
	}
	acc, err := a.store.show(ctx, j)
	if err != nil {
		return Account{}, err
	}
	acc.Sessions = a.env.Sessions.Account(j)
	return acc, nil
}

// maxPage bounds List.
const maxPage = 1000

// List returns up to limit accounts (at most 1000) of a domain in the order of
// their addresses, those behind after; the zero JID begins. The last one's JID
// leads to the next page.
func (a *Accounts) List(ctx context.Context, domain string, after jid.JID, limit int) ([]Account, error) {
	list, err := a.store.list(ctx, sqlList, domain, after.String(), max(1, min(limit, maxPage)))
	for i := range list {
		list[i].Sessions = a.env.Sessions.Account(list[i].JID)
	}
	return list, err
}

// Count returns how many accounts a domain has.
func (a *Accounts) Count(ctx context.Context, domain string) (int64, error) {
	return a.store.number(ctx, sqlCount, domain)
}

// CountDisabled returns how many accounts of a domain are disabled.
func (a *Accounts) CountDisabled(ctx context.Context, domain string) (int64, error) {
	return a.store.number(ctx, sqlCountDisabled, domain)
}

// ListDisabled is List for those that are disabled.
func (a *Accounts) ListDisabled(ctx context.Context, domain string, after jid.JID, limit int) ([]Account, error) {
	return a.store.list(ctx, sqlListDisabled, domain, after.String(), max(1, min(limit, maxPage)))
}

// LooksTaken reports whether an account of the domain has a name that looks
// like this one (reliability row 25).
func (a *Accounts) LooksTaken(ctx context.Context, j jid.JID) (bool, error) {
	n, err := a.store.number(ctx, sqlAlike, Skeleton(j.Local()), j.Domain(), j.String())
	return n > 0, err
}
