package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"parley/stream/s2s"
)

func s2sCommand() *cobra.Command {
	return group("s2s", "Other servers", s2sList())
}

func s2sList() *cobra.Command {
	var p place
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list [DOMAIN]", Short: "Show the streams with other servers, what waits for them, and why", Args: cobra.MaximumNArgs(1),
		Long: `Show each pair of a domain of ours and another's that talk or would, or those of
DOMAIN alone: the streams of this node; other nodes have their own.

  out  what we have to say to them     in  what they say to us

  open        stanzas go on it
  connecting  a stream is being made
  failing     it is tried again at the time that is shown; stanzas wait
  refused     until then senders get an error at once
  idle        nothing was to be said for a while`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.reach(cmd)
			if err != nil {
				return err
			}
			all, err := s2s.Client{Client: c.Client}.List(cmd.Context(), strings.Join(args, ""))
			if err = errors.Join(err, c.release()); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), all)
			}
			if len(all) == 0 {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), "this node has no streams with other servers, and nothing waits for one")
				return err
			}
			return printTable(cmd.OutOrStdout(), s2sRows(all))
		},
	}
	p.common(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// oneLine is a text that others may have chosen, without what a terminal would obey.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, strings.Join(strings.Fields(text), " "))
}

func s2sRows(all []s2s.Stream) [][]string {
	rows := [][]string{{"OURS", "", "THEIRS", "STATE", "SINCE / NEXT", "PROOF", "TLS", "WAITING", "REMOTE / ERROR"}}
	for _, s := range all {
		at, proof, tls, last := s.Since, string(s.Proof), "-", s.Remote
		if s.State != s2s.Open {
			at, last = s.Next, oneLine(s.Error)
		}
		when := "-"
		if !at.IsZero() {
			when = at.Local().Format(time.DateTime)
		}
		if s.TLS {
			tls = "yes"
		}
		if proof == "" {
			proof = "-"
		}
		rows = append(rows, []string{s.Ours, string(s.Direction), s.Theirs, string(s.State), when, proof, tls, strconv.Itoa(s.Waiting), last})
	}
	return rows
}
