package muc

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"parley/parser/jid"
	"parley/parser/stanza/form"
)

// RoomConfig is what owners decide of their room (XEP-0045 §10.2). The table
// below ties it to the form; it is stored as JSON. One that is in use is never
// changed.
type RoomConfig struct {
	Name         string   `json:"name,omitempty"`
	Description  string   `json:"description,omitempty"`
	Lang         string   `json:"lang,omitempty"`
	Persistent   bool     `json:"persistent,omitempty"`
	Public       bool     `json:"public,omitempty"` // it is listed
	MembersOnly  bool     `json:"members_only,omitempty"`
	Moderated    bool     `json:"moderated,omitempty"`
	Protected    bool     `json:"protected,omitempty"` // by Password
	Password     string   `json:"password,omitempty"`
	Whois        Whois    `json:"whois"`
	PrivateMsgs  MayWrite `json:"private_messages"`
	Invites      bool     `json:"invites,omitempty"`        // every member may invite
	Subjects     bool     `json:"change_subject,omitempty"` // every participant may change the subject
	Logged       bool     `json:"logged,omitempty"`         // somewhere public
	MemberList   []Role   `json:"member_list,omitempty"`    // who may read the list of members
	Broadcast    []Role   `json:"broadcast,omitempty"`      // whose presence is shown to all
	MaxUsers     int      `json:"max_users,omitempty"`      // 0: what the service allows
	MaxHistory   int      `json:"max_history"`              // messages that who enters is shown
	PubSub       string   `json:"pubsub,omitempty"`         // URI of an associated node
	Registration Register `json:"registration"`
	SlowMode     int      `json:"slow_mode,omitempty"` // seconds between two messages of one person
}

// Whois says who may see the occupants' addresses.
type Whois string

// The values of muc#roomconfig_whois.
const (
	Moderators Whois = "moderators" // semi-anonymous
	Anyone     Whois = "anyone"     // non-anonymous
)

// MayWrite says who may send private messages (muc#roomconfig_allowpm).
type MayWrite string

// mayWrite is the least role for each value.
var mayWrite = map[MayWrite]Role{"anyone": Visitor, "participants": Participant, "moderators": Moderator, "none": Moderator + 1}

// Register says how people register with the room (XEP-0045 §7.10).
type Register string

// The values.
const (
	RegisterOpen    Register = "open"    // they are members at once
	RegisterApprove Register = "approve" // an admin is asked
	RegisterClosed  Register = "closed"
)

// Names of forms (XEP-0045 §16.5).
const (
	nsRoomConfig = NS + "#roomconfig"
	nsRoomInfo   = NS + "#roominfo"
	nsRegister   = NS + "#register"
	nsRequest    = NS + "#request"
)

// Bounds of texts that owners write, in bytes.
const (
	maxNameBytes     = 256
	maxLangBytes     = 35
	maxPasswordBytes = 256
	maxURIBytes      = 1024
)

// roomForm is what the form is about: the configuration, and the lists that are
// no part of it.
type roomForm struct {
	RoomConfig
	admins, owners []jid.JID
}

// roomTable is the form (XEP-0045 §16.5.3).
func roomTable(c *Config) form.Table[roomForm] {
	const p = "muc#roomconfig_"
	flag := func(name, label string, at func(*roomForm) *bool) form.Binding[roomForm] {
		return form.Bool(p+name, label, at)
	}
	text := func(name, label string, limit int, at func(*roomForm) *string) form.Binding[roomForm] {
		return form.Text(p+name, label, limit, at)
	}
	secret := text("roomsecret", "The room's password", maxPasswordBytes, func(f *roomForm) *string { return &f.Password })
	secret.Type = form.TextPrivate
	return form.Table[roomForm]{
		text("roomname", "Name", maxNameBytes, func(f *roomForm) *string { return &f.Name }),
		text("roomdesc", "Description", int(c.MaxDescription), func(f *roomForm) *string { return &f.Description }),
		text("lang", "Language of the discussions", maxLangBytes, func(f *roomForm) *string { return &f.Lang }),
		flag("persistentroom", "The room stays when everybody has left it", func(f *roomForm) *bool { return &f.Persistent }),
		flag("publicroom", "Everybody may find the room", func(f *roomForm) *bool { return &f.Public }),
		flag("membersonly", "Only members may enter", func(f *roomForm) *bool { return &f.MembersOnly }),
		flag("moderatedroom", "Only those with voice may write", func(f *roomForm) *bool { return &f.Moderated }),
		flag("passwordprotectedroom", "A password is needed to enter", func(f *roomForm) *bool { return &f.Protected }),
		secret,
		form.Choice(p+"whois", "Who may see the occupants' addresses", func(f *roomForm) *Whois { return &f.Whois },
			form.Option{Value: string(Moderators), Label: "Moderators"}, form.Option{Value: string(Anyone), Label: "Anyone"}),
		form.Choice(p+"allowpm", "Who may send private messages", func(f *roomForm) *MayWrite { return &f.PrivateMsgs },
			form.Option{Value: "anyone", Label: "Anyone"}, form.Option{Value: "participants", Label: "Those with voice"},
			form.Option{Value: "moderators", Label: "Moderators"}, form.Option{Value: "none", Label: "Nobody"}),
		flag("allowinvites", "Every member may invite others", func(f *roomForm) *bool { return &f.Invites }),
		flag("changesubject", "Everybody with voice may change the subject", func(f *roomForm) *bool { return &f.Subjects }),
		flag("enablelogging", "The discussions are published", func(f *roomForm) *bool { return &f.Logged }),
		roles(p+"getmemberlist", "Who may read the list of members", func(f *roomForm) *[]Role { return &f.MemberList }),
		roles(p+"presencebroadcast", "Whose presence is shown to everybody", func(f *roomForm) *[]Role { return &f.Broadcast }),
		maxUsers(p+"maxusers", c.MaxOccupants),
		form.Number("muc#maxhistoryfetch", "Messages shown to those who enter", 0, c.MaxHistory, func(f *roomForm) *int { return &f.MaxHistory }),
		text("pubsub", "Address of a node that belongs to the room", maxURIBytes, func(f *roomForm) *string { return &f.PubSub }),
		slowField(),
		form.Choice("parley#roomconfig_registration", "What becomes of those who register", func(f *roomForm) *Register { return &f.Registration },
			form.Option{Value: string(RegisterOpen), Label: "They are members at once"},
			form.Option{Value: string(RegisterApprove), Label: "An admin is asked"}, form.Option{Value: string(RegisterClosed), Label: "Nobody can"}),
		form.JIDs(p+"roomadmins", "Admins", c.MaxAffiliations, func(f *roomForm) *[]jid.JID { return &f.admins }),
		form.JIDs(p+"roomowners", "Owners", c.MaxAffiliations, func(f *roomForm) *[]jid.JID { return &f.owners }),
	}
}

// roles binds a set of roles.
func roles(name, label string, at func(*roomForm) *[]Role) form.Binding[roomForm] {
	b := form.Binding[roomForm]{Field: form.Field{Var: name, Type: form.ListMulti, Label: label}}
	for r := Visitor; r <= Moderator; r++ {
		b.Options = append(b.Options, form.Option{Value: r.String()})
	}
	b.Get = func(f *roomForm) (out []string) {
		for _, r := range *at(f) {
			out = append(out, r.String())
		}
		return out
	}
	b.Set = func(f *roomForm, values []string) string {
		var set []Role
		for _, v := range values {
			if r, _ := ParseRole(v); !slices.Contains(set, r) {
				set = append(set, r)
			}
		}
		slices.Sort(set)
		*at(f) = set
		return ""
	}
	return b
}

// maxUsers binds the number of occupants, of which clients expect a list
// (XEP-0045 §16.5.3).
func maxUsers(name string, limit int) form.Binding[roomForm] {
	const none = "none"
	b := form.Binding[roomForm]{Field: form.Field{Var: name, Type: form.ListSingle, Label: "Most occupants"}}
	for _, n := range []int{10, 20, 30, 50, 100, 200, 500, 1000, 2000, 5000} {
		if n <= limit {
			b.Options = append(b.Options, form.Option{Value: strconv.Itoa(n)})
		}
	}
	b.Options = append(b.Options, form.Option{Value: none, Label: "As many as the service allows"})
	b.Get = func(f *roomForm) []string {
		if f.MaxUsers == 0 {
			return []string{none}
		}
		return []string{strconv.Itoa(f.MaxUsers)}
	}
	b.Set = func(f *roomForm, values []string) string {
		f.MaxUsers, _ = strconv.Atoi(values[0]) // none is 0; nothing else is offered
		return ""
	}
	return b
}

// initial is the configuration of a room that nobody has configured.
func (c *Config) initial() *RoomConfig {
	all := []Role{Visitor, Participant, Moderator}
	return &RoomConfig{
		Persistent: c.Defaults.Persistent, Public: c.Defaults.Public, MembersOnly: c.Defaults.MembersOnly,
		Moderated: c.Defaults.Moderated, Whois: c.Defaults.Whois,
		PrivateMsgs: "anyone", MemberList: all, Broadcast: all, MaxHistory: min(c.History, c.MaxHistory), Registration: RegisterApprove,
	}
}

// check returns why the configuration is none, for people.
func (c *RoomConfig) check() string {
	if c.Protected && c.Password == "" { // XEP-0045 §10.1.3
		return "muc#roomconfig_roomsecret: a room that needs a password has one"
	}
	return ""
}

// shows reports whether presence of occupants of the role is shown to everybody
// (muc#roomconfig_presencebroadcast).
func (c *RoomConfig) shows(r Role) bool { return slices.Contains(c.Broadcast, r) }

func (c *RoomConfig) encode() string {
	b, err := json.Marshal(c)
	if err != nil { // a struct of plain values
		panic(err)
	}
	return string(b)
}

func decodeConfig(s string) (*RoomConfig, error) {
	c := &RoomConfig{Whois: Moderators, PrivateMsgs: "anyone", Registration: RegisterApprove}
	if err := json.Unmarshal([]byte(s), c); err != nil {
		return nil, fmt.Errorf("configuration of a room: %w", err)
	}
	return c, nil
}
