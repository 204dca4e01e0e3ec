package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"parley/plugins/accountadmin"
	"parley/plugins/admin/client"
)

// demonstrate makes the administrator's account on the first run and says what
// to try. The password is printed here and nowhere else; where w is no terminal
// it would stay in a file, so no account is made.
func (s *setup) demonstrate(ctx context.Context, w io.Writer, open map[string]string) {
	domain := s.settings.Domains[0]
	c, err := client.Open(ctx, s.settings.Data)
	if err != nil {
		fmt.Fprintf(w, "No account was made: %v\n\n", err)
		return
	}
	first, err := firstAccount(ctx, accountadmin.Client{Client: c}, "admin@"+domain, isTerminal(w))
	switch {
	case err != nil:
		fmt.Fprintf(w, "No administrator's account was made: %v. Make it with\n  bin/parley account add admin@%s --generate%s\n\n", err, domain, s.dataFlag())
	case first != "":
		fmt.Fprintf(w, "Account    admin@%s\nPassword   %s   (shown this once)\n\n", domain, first)
	}
	fmt.Fprintf(w, `Add two people, in a second terminal in this directory:
  bin/parley account add alice@%[1]s%[4]s
  bin/parley account add bob@%[1]s%[4]s

Connect a client (Gajim, Dino, Conversations, Profanity, …) as each of them:
  server %[2]s, port %[3]s, and accept the self-signed certificate;
  in Profanity: /connect alice@%[1]s server %[2]s port %[3]s tls trust

Then: let alice add bob as a contact, write to him, log in on a second device,
write to somebody who is offline. Meet in a room: "create group" or "join channel"
in the client, in Profanity /join garden@conference.%[1]s. Who enters first owns it:
docs/groups.md tells what an owner can do.

See what is at work: bin/parley component list%[4]s
Stop with Ctrl-C.

`, domain, hostOf(open["c2s"]), port(open["c2s"]), s.dataFlag())
}

// dataFlag is what commands need to find this installation.
func (s *setup) dataFlag() string {
	if filepath.Clean(s.settings.Data) == "data" {
		return ""
	}
	return " --data " + s.settings.Data
}

var errNoTerminal = errors.New("there is no terminal to show its password on")

// firstAccount makes the account unless there are any, and returns its
// password; "" when there are.
func firstAccount(ctx context.Context, c accountadmin.Client, jid string, shown bool) (string, error) {
	page, err := c.List(ctx, "", "")
	if err != nil || len(page.Accounts) > 0 {
		return "", err
	}
	if !shown {
		return "", errNoTerminal
	}
	password := newPassword()
	_, err = c.Create(ctx, jid, password)
	return password, err
}
