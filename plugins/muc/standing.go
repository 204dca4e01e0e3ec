package muc

// Affiliation is somebody's lasting standing in a room (XEP-0045 §5.2). Higher
// ones may do what lower ones may.
type Affiliation int8

// The affiliations.
const (
	IsOutcast Affiliation = iota - 1
	IsNone
	IsMember
	IsAdmin
	IsOwner
)

var affiliationNames = [...]string{"outcast", "none", "member", "admin", "owner"}

// String is its name on the wire.
func (a Affiliation) String() string { return affiliationNames[a-IsOutcast] }

// ParseAffiliation reads what String writes.
func ParseAffiliation(s string) (Affiliation, bool) {
	for i, name := range affiliationNames {
		if name == s {
			return Affiliation(i) + IsOutcast, true //nolint:gosec // few
		}
	}
	return IsNone, false
}

// Role is what an occupant may do as long as it is in the room (XEP-0045 §5.1).
// Higher ones may do what lower ones may.
type Role uint8

// The roles. NoRole is that of who is not in the room.
const (
	NoRole Role = iota
	Visitor
	Participant
	Moderator
)

var roleNames = [...]string{"none", "visitor", "participant", "moderator"}

// String is its name on the wire.
func (r Role) String() string { return roleNames[r] }

// ParseRole reads what String writes.
func ParseRole(s string) (Role, bool) {
	for i, name := range roleNames {
		if name == s {
			return Role(i), true //nolint:gosec // few
		}
	}
	return NoRole, false
}

// defaultRole is what somebody enters with (XEP-0045 §5.1.2).
func (c *RoomConfig) defaultRole(a Affiliation) Role {
	switch {
	case a >= IsAdmin:
		return Moderator
	case a == IsMember, !c.Moderated:
		return Participant
	}
	return Visitor
}

// Codes of muc#user statuses (XEP-0045 §16.6.2).
const (
	statusNonAnonymous      = "100"
	statusAffiliation       = "101"
	statusConfiguration     = "104"
	statusSelf              = "110"
	statusLogged            = "170"
	statusNotLogged         = "171"
	statusNowNonAnonymous   = "172"
	statusNowSemiAnonymous  = "173"
	statusCreated           = "201"
	statusNickAssigned      = "210"
	statusBanned            = "301"
	statusNickChanged       = "303"
	statusKicked            = "307"
	statusAffiliationLost   = "321"
	statusNowMembersOnly    = "322"
	statusServiceShutsDown  = "332"
	statusTechnicalProblems = "333"
)
