package admincommands

import (
	"context"

	"parley/parser/stanza"
	"parley/parser/stanza/form"
	"parley/plugins/commands"
)

// nsAdmin is the FORM_TYPE, and the beginning of each command's node (XEP-0133 §9).
const nsAdmin = "http://jabber.org/protocol/admin"

// entry is one command of XEP-0133 §4.
type entry struct {
	node, name string
	server     bool // for administrators of the server alone
	form       func(context.Context, *commands.Execution) (*form.Form, error)
	run        func(context.Context, *commands.Execution) (*commands.Outcome, error)
}

// table is XEP-0133 §4 in its order.
func (a *component) table() []entry {
	return []entry{
		{node: "add-user", name: "Add a user", form: asks(addFields), run: a.addUser},
		{node: "delete-user", name: "Delete users", form: asks(usersField), run: a.each(a.accounts.Delete)},
		{node: "disable-user", name: "Disable users", form: asks(usersField), run: a.each(a.accounts.Disable)},
		{node: "reenable-user", name: "Re-enable users", form: asks(usersField), run: a.each(a.accounts.Enable)},
		{node: "end-user-session", name: "End users' sessions", form: asks(usersField), run: a.endSessions},
		{node: "change-user-password", name: "Change a user's password", form: asks(passwordFields), run: a.changePassword},
		{node: "get-user-roster", name: "Get users' rosters", form: asks(usersField), run: a.showRosters},
		{node: "get-user-lastlogin", name: "Get users' last logins", form: asks(usersField), run: a.showLogins},
		{node: "user-stats", name: "Get a user's statistics", form: asks(userField), run: a.showStats},
		{node: "edit-blacklist", name: "Edit the blacklist", form: a.listForm(black), run: a.editList(black)},
		{node: "edit-whitelist", name: "Edit the whitelist", form: a.listForm(white), run: a.editList(white)},
		{node: "get-registered-users-num", name: "Count the users", run: a.count("registeredusersnum", a.registered)},
		{node: "get-disabled-users-num", name: "Count the disabled users", run: a.count("disabledusersnum", a.disabled)},
		{node: "get-online-users-num", name: "Count the users that are online", run: a.count("onlineusersnum", a.online(anybody))},
		{node: "get-active-users-num", name: "Count the users that are active", run: a.count("activeusersnum", a.online(active))},
		{node: "get-idle-users-num", name: "Count the users that are idle", run: a.count("idleusersnum", a.online(idle))},
		{node: "get-registered-users-list", name: "List the users", form: asks(maxItems), run: a.list("registereduserjids", a.registered)},
		{node: "get-disabled-users-list", name: "List the disabled users", form: asks(maxItems), run: a.list("disableduserjids", a.disabled)},
		{node: "get-online-users-list", name: "List the users that are online", form: asks(maxItems), run: a.list("onlineuserjids", a.online(anybody))},
		{node: "get-active-users", name: "List the users that are active", form: asks(maxItems), run: a.list("activeuserjids", a.online(active))},
		{node: "get-idle-users", name: "List the users that are idle", form: asks(maxItems), run: a.list("idleuserjids", a.online(idle))},
		{node: "announce", name: "Send an announcement", form: asks(announceFields), run: a.announce},
		{node: "set-motd", name: "Set the message of the day", form: asks(motdField), run: a.setMotd(true)},
		{node: "edit-motd", name: "Edit the message of the day", form: a.textForm(motd, motdField), run: a.setMotd(false)},
		{node: "delete-motd", name: "Delete the message of the day", run: a.deleteText(motd)},
		{node: "set-welcome", name: "Set the welcome message", form: a.textForm(welcome, welcomeField), run: a.setWelcome},
		{node: "delete-welcome", name: "Delete the welcome message", run: a.deleteText(welcome)},
		{node: "edit-admin", name: "Edit the admin list", server: true, form: a.adminForm, run: a.editAdmins},
		{node: "restart", name: "Restart the server", server: true, form: asks(haltFields), run: a.halt(true)},
		{node: "shutdown", name: "Shut down the server", server: true, form: asks(haltFields), run: a.halt(false)},
	}
}

func (t entry) command() *commands.Command {
	c := &commands.Command{Node: nsAdmin + "#" + t.node, Name: t.name, FormType: nsAdmin, Run: t.run}
	if t.form != nil {
		c.Steps = []commands.Step{{Form: t.form}}
	}
	return c
}

// asks is a form whose fields are always the same.
func asks(fields func() []form.Field) func(context.Context, *commands.Execution) (*form.Form, error) {
	return func(context.Context, *commands.Execution) (*form.Form, error) {
		return &form.Form{Fields: fields()}, nil
	}
}

// required is a field that has to be filled in.
func required(typ, name, label string) form.Field {
	return form.Field{Var: name, Type: typ, Label: label, Required: true}
}

func userField() []form.Field {
	return []form.Field{required(form.JIDSingle, "accountjid", "The account")}
}

func usersField() []form.Field {
	return []form.Field{required(form.JIDMulti, "accountjids", "The accounts")}
}

// shown is what a command has found.
func shown(fields ...form.Field) *stanza.Element {
	return (&form.Form{Kind: form.Result, Type: nsAdmin, Fields: fields}).Element()
}

func field(name string, values ...string) form.Field { return form.Field{Var: name, Values: values} }
