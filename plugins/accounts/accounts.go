// Package accounts knows who lives here: names, keys, tokens, and whether an
// account may be used.
//
// Specs: RFC 6120 §6 and RFC 5802, RFC 7677 (keys), XEP-0484 (tokens),
// RFC 6121 §8.5.1 (what happens to stanzas for nobody), RFC 7622 (names).
//
// Flow: *Accounts is the contract that other features and the administration
// use. The streamer's component makes the SASL mechanisms of each domain out of
// it and slows down guessing. The processor's component stands first in the
// Incoming hook and turns away what is for nobody, notes logins, and sees to it
// that a deleted account is forgotten by everybody.
//
// A password is never stored: the keys of SCRAM-SHA-1 and SCRAM-SHA-256 are.
//
// An account ends in this order, so that nothing of it can come back:
//
//  1. The row is marked as removed; keys and tokens go in the same
//     transaction. From here on nobody logs in and Exists says no.
//  2. Its sessions are closed; what they still send is dropped.
//  3. When the last one has left, AccountRemoved fires.
//  4. A while later it fires once more, for what was under way to the account
//     when it was marked, and the row goes. Whoever wants the name before that
//     time triggers this step.
//
// After a crash the row tells how far it came; step 4 is repeated until every
// feature has agreed.
package accounts

import (
	"context"
	"embed"
	"errors"
	"log/slog"
	"runtime"
	"sync/atomic"
	"time"

	"parley/parser/jid"
	"parley/plugins"
	"parley/processor"
	"parley/router/sessions"
	"parley/storage"
	"parley/storage/cache"
	"parley/stream/sasl"
)

//go:embed sql
var migrations embed.FS

// Name is the plugin's name, for Requires and plugins.Need.
const Name = "accounts"

// Plugin provides accounts.
var Plugin = plugins.Plugin{
	Name: Name,
	Doc:  "Accounts, their keys and tokens, and login.",
	Components: []plugins.Maker{
		{Server: "streamer", Defaults: defaults(), New: newCredentials},
		{Server: processor.Name, New: newGuard},
	},
	Migrations: migrations,
	// A token that was used or revoked since must not come back to life
	// (XEP-0484 §5): clients log in with their passwords.
	Restored: func(ctx context.Context, tx storage.Tx, _ int64) error {
		_, err := tx.Exec(ctx, `DELETE FROM account_token`)
		return err
	},
	Contract: func(env plugins.Env) (any, error) { return newAccounts(env) },
}

// Errors that callers can act on.
var (
	ErrExists   = errors.New("account exists already")
	ErrUnknown  = errors.New("no such account")
	ErrDisabled = errors.New("account is disabled")
	ErrName     = errors.New("not the address of an account here") // not bare, no localpart, or a foreign domain
	ErrPassword = sasl.ErrPassword                                 // empty, too long, or made of forbidden characters
	ErrBusy     = sasl.ErrBusy                                     // too many passwords are being computed
	ErrClient   = errors.New("no usable client id")                // XEP-0484 §4.1: tokens need one
)

// Accounts is the contract: one per Host. Safe for concurrent use.
type Accounts struct {
	env        plugins.Env
	log        *slog.Logger
	store      store
	states     *cache.Cache[jid.JID, state]
	logins     *cache.Cache[string, login] // by bare JID
	pool       *sasl.Pool                  // where keys are derived, for logins and for new passwords
	iterations atomic.Int64
	house      atomic.Pointer[processor.Registrar] // nil while no processor runs here
	closing    refs                                // sessions that were told to go
}

// passwordQueue is how many may wait for their keys to be derived.
const passwordQueue = 1024

func newAccounts(env plugins.Env) (*Accounts, error) {
	st, err := cache.New(cache.Options[jid.JID, state]{Size: stateEntries, TTL: stateTTL, Now: env.Clock.Now})
	if err != nil {
		return nil, err
	}
	lg, err := cache.New(cache.Options[string, login]{Size: loginEntries, TTL: stateTTL, Now: env.Clock.Now})
	if err != nil {
		return nil, err
	}
	a := &Accounts{env: env, log: env.Log, store: store{env.DB}, states: st, logins: lg}
	// Half of the processors are left to sessions that are logged in.
	a.pool = sasl.NewPool((runtime.GOMAXPROCS(0)+1)/2, passwordQueue)
	a.iterations.Store(int64(defaults().Iterations))
	env.OnForget(topicStates, a.elsewhere)
	env.OnAnswer(callRelease, a.answerRelease)
	env.OnAnswer(callCreated, a.answerCreated)
	return a, nil
}

// Account describes one account. Times are zero when it never happened.
type Account struct {
	JID       jid.JID
	Created   time.Time
	LastLogin time.Time // of the last session; at most a minute behind
	Disabled  time.Time // since when; zero: it is not
	Sessions  []*sessions.Entry
}

// check returns the account's prepared bare address, or ErrName.
func (a *Accounts) check(j jid.JID) error {
	if j.Local() == "" || !j.IsBare() || !a.env.Local(j.Domain()) {
		return ErrName
	}
	return nil
}
