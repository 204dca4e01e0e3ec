package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
)

func serverCommand() *cobra.Command {
	cmd := group("server", "Start and stop Servers (stages) of a running process", serverList())
	cmd.Long = `Unlike components, Servers are started and stopped in one process alone, and its
restart brings them back: to end a stage everywhere is to end the service.`
	for _, v := range []verb{{"start", "Start a Server"}, {"stop", "Drain a Server and stop it; what is sent to it waits"}} {
		cmd.AddCommand(serverVerb(v))
	}
	return cmd
}

func serverList() *cobra.Command {
	var r remote
	return r.command("list", "List Servers", cobra.NoArgs, func(cmd *cobra.Command, c *reached, _ []string) error {
		all, err := c.Servers(cmd.Context())
		if err != nil {
			return err
		}
		if r.json {
			return printJSON(cmd.OutOrStdout(), all)
		}
		rows := [][]string{{"SERVER", "STATE", "DEPLOYMENT", "WORKERS", "ERROR"}}
		for _, s := range all {
			state := "stopped"
			if s.Running {
				state = "running"
			}
			rows = append(rows, []string{s.Name, state, s.Deployment, strconv.Itoa(s.Workers), s.Error})
		}
		return printTable(cmd.OutOrStdout(), rows)
	})
}

func serverVerb(v verb) *cobra.Command {
	var r remote
	return r.command(v.name+" NAME", v.short, cobra.ExactArgs(1), func(cmd *cobra.Command, c *reached, args []string) error {
		if err := c.Server(cmd.Context(), v.name, args[0]); err != nil {
			return err
		}
		if r.json {
			all, err := c.Servers(cmd.Context())
			if err != nil {
				return err
			}
			return printJSON(cmd.OutOrStdout(), all)
		}
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", args[0], done(v.name))
		return err
	})
}

// done is what has been done.
func done(verb string) string {
	if verb == "stop" {
		return "stopped"
	}
	return verb + "ed"
}
