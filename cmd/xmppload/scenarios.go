//go:build linux

package main

import (
	"github.com/spf13/cobra"

	"parley/cmd/xmppload/internal/scenario"
)

func loginCommand() *cobra.Command {
	var s scenario.Login
	return command("login", "Log in and out again", func(cmd *cobra.Command, _ *options) {
		cmd.Flags().IntVar(&s.Count, "count", 2000, "logins that are measured")
		cmd.Flags().IntVar(&s.Accounts, "accounts", 500, "accounts that they go round among; the first login of each is measured apart")
	}, func(o *options) runner { s.Common = o.Common; return s })
}

func idleCommand() *cobra.Command {
	var s scenario.Idle
	return command("idle", "Keep sessions open and weigh them", func(cmd *cobra.Command, _ *options) {
		cmd.Flags().IntVar(&s.Sessions, "sessions", 2000, "sessions")
	}, func(o *options) runner { s.Common = o.Common; return s })
}

func chatFlags(s *scenario.Chat, messages int) func(*cobra.Command, *options) {
	return func(cmd *cobra.Command, _ *options) {
		f := cmd.Flags()
		f.IntVar(&s.Pairs, "pairs", 500, "senders, each with a receiver of its own")
		f.IntVar(&s.Window, "window", 1, "messages under way per pair; the next goes out when one has come")
		f.Float64Var(&s.Rate, "rate", 0, "messages a second, sent when they are due and not when others have come; latency counts from then")
		f.IntVar(&s.Messages, "messages", messages, "messages that are measured")
		f.IntVar(&s.Body, "body", 100, "bytes of text in each")
	}
}

func chatCommand() *cobra.Command {
	var s scenario.Chat
	return command("chat", "One-to-one chat between pairs", chatFlags(&s, 100_000), func(o *options) runner { s.Common = o.Common; return s })
}

func archiveCommand() *cobra.Command {
	var s scenario.Chat
	return command("archive", "Chat with a server that archives, then fetch pages", func(cmd *cobra.Command, o *options) {
		chatFlags(&s, 50_000)(cmd, o)
		cmd.Flags().IntVar(&s.Pages, "pages", 500, "pages of 50 that are fetched, one after the other")
	}, func(o *options) runner { s.Common = o.Common; return s })
}

func presenceCommand() *cobra.Command {
	var s scenario.Presence
	return command("presence", "One person's presence to many contacts", func(cmd *cobra.Command, _ *options) {
		cmd.Flags().IntVar(&s.Contacts, "contacts", 200, "contacts")
		cmd.Flags().IntVar(&s.Changes, "changes", 500, "changes of presence that are measured")
		cmd.Flags().IntVar(&s.Window, "window", 1, "changes under way")
	}, func(o *options) runner { s.Common = o.Common; return s })
}

func offlineCommand() *cobra.Command {
	var s scenario.Offline
	return command("offline", "Store messages for people who are away, then deliver them", func(cmd *cobra.Command, _ *options) {
		cmd.Flags().IntVar(&s.Pairs, "pairs", 100, "senders, each with a receiver who is away")
		cmd.Flags().IntVar(&s.Each, "each", 50, "messages per receiver")
		cmd.Flags().IntVar(&s.Body, "body", 100, "bytes of text in each")
	}, func(o *options) runner { s.Common = o.Common; return s })
}

func joinsCommand() *cobra.Command {
	var s scenario.Joins
	return command("joins", "A room: join it, one after the other", func(cmd *cobra.Command, _ *options) {
		cmd.Flags().IntVar(&s.Occupants, "occupants", 1000, "occupants")
	}, func(o *options) runner { s.Common = o.Common; return s })
}

func mucCommand() *cobra.Command {
	var s scenario.Room
	return command("muc", "A room: post to everybody", func(cmd *cobra.Command, _ *options) {
		cmd.Flags().IntVar(&s.Occupants, "occupants", 200, "occupants")
		cmd.Flags().IntVar(&s.Posts, "posts", 500, "posts that are measured")
		cmd.Flags().IntVar(&s.Window, "window", 1, "posts under way")
		cmd.Flags().IntVar(&s.Body, "body", 100, "bytes of text in each")
	}, func(o *options) runner { s.Common = o.Common; return s })
}
