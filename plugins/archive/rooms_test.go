package archive_test

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/archive"
	"parley/plugins/plugintest"
	"parley/processor"
	"parley/router/cluster/owner"
	"parley/storage"
	"parley/storage/storagetest"
)

// The simplest of rooms: at the hall's domain everybody is in every room, under the
// name of their account, and hears nothing but what they say. Who asks the archive
// as "outcast" may not.
const (
	hallDomain = "hall.localhost"
	nsHall     = "urn:parley:test:hall"
	nsRetract  = "urn:xmpp:message-retract:1"
)

func hallPlugin() plugins.Plugin {
	return plugins.Plugin{
		Name: "hall", Requires: []string{archive.Name},
		Components: []plugins.Maker{{Server: processor.Name, New: func(env plugins.Env, _ plugins.Config) (plugins.Component, error) {
			a, err := plugins.Need[*archive.Archive](env, archive.Name)
			return &hall{env: env, archive: a}, err
		}}},
	}
}

type hall struct {
	env     plugins.Env
	archive *archive.Archive
	reg     *processor.Registrar
}

func (*hall) Start(context.Context) error { return nil }
func (*hall) Stop(context.Context) error  { return nil }

// Register implements processor.Component.
func (h *hall) Register(r *processor.Registrar) {
	h.reg = r
	r.Owned(processor.Owned{
		Key: func(st *stanza.Stanza) (string, bool) {
			if st.To.Domain() != hallDomain {
				return "", false
			}
			if p := st.Payload(); st.Kind == stanza.IQ && p != nil && p.Name.Space == archive.NS {
				return "", true // any node
			}
			return st.To.Bare().String(), true
		},
		Handle: h.handle,
	})
}

func (h *hall) handle(ctx context.Context, st *stanza.Stanza, hold *owner.Hold) (*stanza.Element, error) {
	room, err := h.archive.Room(ctx, st.To.Bare())
	if err != nil {
		return nil, err
	}
	if st.Kind == stanza.Message {
		return nil, h.said(ctx, room, st, hold)
	}
	q := st.Payload()
	switch q.Name.Local {
	case "query":
		if strings.HasPrefix(st.From.Local(), "outcast") {
			return nil, stanza.NewError(stanza.Forbidden, "")
		}
		return room.Query(ctx, st, nil)
	case "metadata":
		return room.Metadata(ctx, st)
	case "last":
		n, _ := strconv.Atoi(q.Get("n"))
		some, err := room.Last(ctx, n, time.Time{})
		last := stanza.El(nsHall, "last")
		for _, m := range some {
			last.Add(stanza.El(nsHall, "message").With("id", m.Stanza.ID).With("from", m.Stanza.From.String()))
		}
		return last, err
	case "destroy":
		var w storage.WriteSet
		hold.Guard(w.Add)
		settled := room.Forget(w.Add)
		err := h.env.DB.Commit(ctx, &w)
		settled(ctx, err == nil)
		return nil, err
	}
	return nil, stanza.NewError(stanza.FeatureNotImplemented, "")
}

// said keeps a message, and applies it when it takes another one back; then its
// sender gets it.
func (h *hall) said(ctx context.Context, room *archive.Room, st *stanza.Stanza, hold *owner.Hold) error {
	from, err := jid.Parse(st.To.Bare().String() + "/" + st.From.Local())
	if err != nil {
		return err
	}
	id := room.Next()
	children := []*stanza.Element{room.StanzaID(id)}
	for _, c := range st.Children {
		children = append(children, st.Element(c))
	}
	kept := stanza.Make(stanza.Message, stanza.TypeGroupchat, from, st.From, st.ID, children...)
	var w storage.WriteSet
	hold.Guard(w.Add)
	if r := st.Child(nsRetract, "retract"); r != nil {
		how := archive.Retraction{By: st.ID}
		how.ID, _ = room.ID(r.Get("id"))
		if strings.HasPrefix(from.Resource(), "moderator") {
			how.Moderated = stanza.El("urn:xmpp:message-moderate:1", "moderated").With("by", from.String())
			how.Reason = "not here"
		}
		err := room.Retract(ctx, how, func(m *stanza.Stanza) error {
			if m.From != from && how.Moderated == nil {
				return stanza.NewError(stanza.Forbidden, "")
			}
			return nil
		}, w.Add)
		if err != nil {
			return err
		}
	}
	settled := room.Keep(id, kept, w.Add)
	err = h.env.DB.Commit(ctx, &w)
	settled(err == nil)
	if err == nil {
		h.reg.Emit(ctx, kept)
	}
	return err
}

func TestRoomScripts(t *testing.T) {
	storagetest.EachConfig(t, func(t *testing.T, c storage.Config) {
		plugintest.Run(t, plugintest.Options{Plugins: append(house(), hallPlugin()), Storage: func() storage.Config { return c }}, "testdata/room/*.txtar")
	})
}

// Results and their end come from the node that the asker is on, whoever has the
// room.
func TestRoomScriptsOnNodes(t *testing.T) {
	c := storagetest.Postgres(t)
	plugintest.Run(t, plugintest.Options{Plugins: append(house(), hallPlugin()), Nodes: 2, Storage: func() storage.Config { return c }}, "testdata/room/*.txtar")
}
