package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"parley/plugins"
)

// defaultPace is how many sessions a drain sends away in a second: with TLS each
// costs the node that it goes to about half a millisecond of CPU and a few rows.
const defaultPace = 200

func nodeCommand() *cobra.Command {
	return group("node", "The nodes of a cluster", nodeList(), nodeDrain(), nodeUndrain())
}

func nodeList() *cobra.Command {
	var r remote
	return r.command("list", "List the nodes that are alive, as the one that is asked sees them", cobra.NoArgs,
		func(cmd *cobra.Command, c *reached, _ []string) error {
			all, err := c.Cluster(cmd.Context())
			if err != nil {
				return err
			}
			if r.json {
				return printJSON(cmd.OutOrStdout(), all)
			}
			return printNodes(cmd.OutOrStdout(), all)
		})
}

func printNodes(w io.Writer, all plugins.Cluster) error {
	rows := [][]string{{"NODE", "NUMBER", "STATE", "SINCE", "SESSIONS", "AWAY", "IN FLIGHT", "OLDEST", "RETRIES", "VERSION", "SERVERS"}}
	for _, n := range all.Nodes {
		name, lanes := n.Node, []string{"", "", ""}
		if n.Node == all.Node {
			name += " (asked)"
		} else {
			lanes = toward(n.Lanes)
		}
		rows = append(rows, append(append([]string{
			name, strconv.Itoa(n.Number), stateOf(n), n.Since.Local().Format(time.DateTime), strconv.Itoa(n.Sessions), strconv.Itoa(n.Away),
		}, lanes...), n.Version, strings.Join(n.Servers, ",")))
	}
	if err := printTable(w, rows); err != nil {
		return err
	}
	switch {
	case all.Alone:
		_, err := fmt.Fprintln(w, "\nThis node is alone: it is not one of several (cluster.nats.urls).")
		return err
	case !all.Held:
		_, err := fmt.Fprintln(w, "\nThe node that was asked is fenced: the others take it for dead, and it ends.")
		return err
	}
	return nil
}

func stateOf(n plugins.NodeStatus) string {
	for _, l := range n.Lanes {
		if l.Stalled {
			return "does not answer"
		}
	}
	if n.Draining {
		return "draining"
	}
	return "alive"
}

// toward sums up the lanes to a node: in flight, age of the oldest, retries.
func toward(lanes []plugins.Lane) []string {
	var inFlight, retries uint64
	var oldest float64
	for _, l := range lanes {
		inFlight, retries, oldest = inFlight+l.InFlight, retries+l.Retries, max(oldest, l.Oldest)
	}
	return []string{strconv.FormatUint(inFlight, 10), time.Duration(oldest * float64(time.Second)).Round(time.Millisecond).String(), strconv.FormatUint(retries, 10)}
}

func nodeDrain() *cobra.Command {
	var r remote
	var pace string
	var wait bool
	cmd := r.command("drain [NODE]", "Send a node's clients to the other nodes, so that it can be stopped", cobra.MaximumNArgs(1),
		func(cmd *cobra.Command, c *reached, args []string) error {
			perSecond, err := strconv.ParseFloat(strings.TrimSuffix(pace, "/s"), 64)
			if err != nil || perSecond <= 0 {
				return fmt.Errorf("--pace %q: so many sessions a second, such as 50 or 0.5/s", pace)
			}
			node, err := meant(cmd.Context(), c, args)
			if err != nil {
				return err
			}
			if err := c.Drain(cmd.Context(), node, perSecond); err != nil {
				return err
			}
			if wait {
				if err := drained(cmd.Context(), cmd.ErrOrStderr(), c, node); err != nil {
					return err
				}
			}
			return r.showNode(cmd, c, node)
		})
	cmd.Long = `Closes the doors of a node, this one or another one of its cluster, and sends its
clients away with system-shutdown, so many a second: they connect to another
node, and those with stream management go on there as if only their connection
had broken. Shows how many sessions are left, and ends when there is none; then
the node can be stopped. It stays a member, and drains until it ends or is told
otherwise (parley node undrain), also when this command is interrupted.

The last node that takes clients is not drained: stop it. Should a node that
drains become the last one, it takes clients until there is another one again.`
	cmd.Example = `  parley node drain && systemctl restart parley
  parley node drain node2 --pace 50/s`
	cmd.Flags().StringVar(&pace, "pace", fmt.Sprintf("%d/s", defaultPace), "sessions that are sent away in a second")
	cmd.Flags().BoolVar(&wait, "wait", true, "wait until nobody is left")
	return cmd
}

func nodeUndrain() *cobra.Command {
	var r remote
	return r.command("undrain [NODE]", "Let clients connect to a node again", cobra.MaximumNArgs(1),
		func(cmd *cobra.Command, c *reached, args []string) error {
			node, err := meant(cmd.Context(), c, args)
			if err != nil {
				return err
			}
			if err := c.Undrain(cmd.Context(), node); err != nil {
				return err
			}
			if r.json {
				return r.showNode(cmd, c, node)
			}
			// The node that is asked sees it with its next look at the members.
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: takes clients again\n", node)
			return err
		})
}

// meant is the node that [NODE] means: the one that is asked, without.
func meant(ctx context.Context, c *reached, args []string) (string, error) {
	if len(args) > 0 {
		return args[0], nil
	}
	all, err := c.Cluster(ctx)
	return all.Node, err
}

// errGone: the node is not among those that are alive.
var errGone = errors.New("has left the cluster")

func statusOf(ctx context.Context, c *reached, node string) (plugins.NodeStatus, error) {
	all, err := c.Cluster(ctx)
	if err != nil {
		return plugins.NodeStatus{}, err
	}
	for _, n := range all.Nodes {
		if n.Node == node {
			return n, nil
		}
	}
	return plugins.NodeStatus{}, fmt.Errorf("%s %w", node, errGone)
}

const (
	lookEvery = 200 * time.Millisecond
	sayEvery  = 2 * time.Second
	// obeyWithin is how long another node may take to say that it drains: what it
	// says of itself is read from the database now and then.
	obeyWithin = 10 * time.Second
)

// drained waits until a node has no session any more, and says how many it has.
func drained(ctx context.Context, w io.Writer, c *reached, node string) error {
	began, said := time.Now(), time.Time{}
	for {
		n, err := statusOf(ctx, c, node)
		switch {
		case errors.Is(err, errGone):
			return fmt.Errorf("%w while it was draining", err)
		case err != nil:
			return err
		case n.Sessions == 0 && n.Draining:
			return nil
		case !n.Draining && time.Since(began) > obeyWithin:
			return fmt.Errorf("%s does not drain: its log says why", node)
		case time.Since(said) >= sayEvery:
			said = time.Now()
			if _, err := fmt.Fprintf(w, "%s: %d sessions left, %d of them without a connection\n", node, n.Sessions, n.Away); err != nil {
				return err
			}
		}
		select {
		case <-time.After(lookEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (r *remote) showNode(cmd *cobra.Command, c *reached, node string) error {
	n, err := statusOf(cmd.Context(), c, node)
	if err != nil {
		return err
	}
	if r.json {
		return printJSON(cmd.OutOrStdout(), n)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %s, %d sessions\n", node, stateOf(n), n.Sessions)
	return err
}
