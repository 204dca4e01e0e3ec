package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"parley/plugins/invitations"
)

// inviteCommand makes an invitation to an account (XEP-0401 §5.4).
func inviteCommand() *cobra.Command {
	var p place
	var asJSON bool
	var hours int
	cmd := &cobra.Command{
		Use: "invite JID|DOMAIN", Short: "Invite somebody to an account: prints a link and its QR code", Args: cobra.ExactArgs(1),
		Long: `Invites somebody to the account JID, or to an account of DOMAIN whose name they choose.
The link is good once. The streamer's register has to be enabled; with open: false
it lets in those alone who are invited.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := p.reachAlways(cmd)
			if err != nil {
				return err
			}
			made, err := invitations.Client{Client: c.Client}.Invite(cmd.Context(), args[0], hours)
			if err = errors.Join(err, c.release()); err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), made)
			}
			if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s\ngood once, until %s\n", made.URI, made.Expires.Format("2006-01-02 15:04 MST")); err != nil {
				return err
			}
			return printQR(cmd.OutOrStdout(), made.URI)
		},
	}
	p.common(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().IntVar(&hours, "hours", 7*24, "how long it is good")
	return cmd
}
