// Package jid implements XMPP addresses.
package jid

// JID is an address.
type JID struct {
	s           string
	local, bare uint16
}

// IsZero reports whether j is no address at all.
func (j JID) IsZero() bool { return j.s == "" }

// String returns the prepared form.
func (j JID) String() string { return j.s }

// Parse is filled in next.
func Parse(s string) (JID, error) { return JID{}, nil }
