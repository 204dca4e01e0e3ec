package nats

import (
	"encoding/base32"
	"strings"
	"unicode/utf8"
)

// Subjects are four tokens, so that a server's permissions can say who speaks as
// whom (docs/cluster.md):
//
//	prefix . node it goes to . node it comes from . port
//
// A node subscribes to its own second token alone, and publishes with its own third
// one alone. What says in its frame that it comes from another node than its subject
// does is ignored.

// ackPort is the port of acknowledgements.
const ackPort = "ack"

// subject of what one node sends to a port of another.
func subject(cluster, to, from, port string) string {
	return cluster + "." + token(to) + "." + token(from) + "." + port
}

// inbox is the subject of everything that comes to a port of a node.
func inbox(cluster, node, port string) string {
	return cluster + "." + token(node) + ".*." + port
}

// token is a node's name in subjects: itself, or what begins as no name does when
// NATS would not take it.
func token(node string) string {
	if isToken(node) {
		return node
	}
	return "=" + strings.ToLower(base32.HexEncoding.WithPadding(base32.NoPadding).EncodeToString([]byte(node)))
}

// sentBy reports whether something that came to an inbox comes from the node.
func sentBy(subject, inbox string, node []byte) bool {
	before, after, _ := strings.Cut(inbox, "*")
	from, is := strings.CutPrefix(subject, before)
	if !is {
		return false
	}
	from, is = strings.CutSuffix(from, after)
	return is && (from == string(node) && isToken(from) || from == token(string(node)))
}

// isNode reports whether s may name a node: it becomes a label of metrics, and
// a token of subjects that grows by three fifths.
func isNode(s string) bool { return s != "" && len(s) <= 255 && utf8.ValidString(s) }

// isToken reports whether s may be a cluster or a port.
func isToken(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
}
