package roster

import "parley/parser/stanza"

// State is one of the nine subscription states between an account and a
// contact, seen from the account (RFC 6121 §A.1).
type State uint8

// What a State is made of.
const (
	to   State = 1 << iota // the account is subscribed to the contact
	from                   // the contact is subscribed to the account
	out                    // the account has asked, without an answer yet
	in                     // the contact has asked, without an answer yet
)

// The states. A contact that is not in the roster is None, or NoneIn.
const (
	None      State = 0
	NoneOut         = out
	NoneIn          = in
	NoneOutIn       = out | in
	To              = to
	ToIn            = to | in
	From            = from
	FromOut         = from | out
	Both            = to | from
)

// To reports whether the account gets the contact's presence.
func (s State) To() bool { return s&to != 0 }

// From reports whether the contact gets the account's presence.
func (s State) From() bool { return s&from != 0 }

// PendingOut reports whether the account waits for the contact's answer.
func (s State) PendingOut() bool { return s&out != 0 }

// PendingIn reports whether the contact waits for the account's answer.
func (s State) PendingIn() bool { return s&in != 0 }

// Subscription is the value of the item's attribute (RFC 6121 §2.1.2.5).
func (s State) Subscription() string { return subscriptions[s&Both] }

var subscriptions = [...]string{None: "none", To: "to", From: "from", Both: "both"}

// String is the name in RFC 6121 §A.1.
func (s State) String() string { return stateNames[s&15] }

var stateNames = [16]string{
	None: "None", NoneOut: "None + Pending Out", NoneIn: "None + Pending In", NoneOutIn: "None + Pending Out+In",
	To: "To", ToIn: "To + Pending In", From: "From", FromOut: "From + Pending Out", Both: "Both",
}

// Action is a type of presence that manages a subscription (RFC 6121 §3).
type Action uint8

// The actions, in the order of RFC 6121 §A.2.
const (
	Subscribe Action = iota
	Unsubscribe
	Subscribed
	Unsubscribed
	actions
)

var actionTypes = [actions]string{stanza.TypeSubscribe, stanza.TypeUnsubscribe, stanza.TypeSubscribed, stanza.TypeUnsubscribed}

// String is the presence type.
func (a Action) String() string { return actionTypes[a] }

// ActionOf returns the action of a presence type; false for other types.
func ActionOf(typ string) (Action, bool) {
	for i, t := range actionTypes {
		if t == typ {
			return Action(i), true
		}
	}
	return 0, false
}

// Direction tells who acts.
type Direction uint8

// The directions.
const (
	Outbound Direction = iota // the account acts; RFC 6121 §A.2
	Inbound                   // the contact acts; RFC 6121 §A.3
)

// Note is a footnote of the tables.
type Note uint8

// The notes.
const (
	NoNote            Note = iota
	PreApprove             // §A.2.3 [1]: the item is marked as approved (§3.4.2)
	CancelApproval         // §A.2.4 [1]: the mark goes (§3.2.2)
	IfApproved             // §A.3.1 [1]: with the mark: answer subscribed, deliver nothing, become From (§3.4.2)
	ReplySubscribed        // §A.3.1 [2]: answer subscribed (§3.1.3)
	ReplyUnsubscribed      // §A.3.2 [1]: answer unsubscribed
)

// Cell is what the tables prescribe.
type Cell struct {
	Pass bool // Outbound: route; Inbound: deliver
	New  State
	Note Note
}

const (
	yes = true  // MUST
	no  = false // MUST NOT, SHOULD NOT
)

// table is RFC 6121 §A.2 and §A.3, Tables 2 to 9: nine states, four actions,
// two directions.
var table = [2][actions][16]Cell{
	Outbound: {
		Subscribe: { // Table 2
			None:      {yes, NoneOut, NoNote},
			NoneOut:   {yes, NoneOut, NoNote},
			NoneIn:    {yes, NoneOutIn, NoNote},
			NoneOutIn: {yes, NoneOutIn, NoNote},
			To:        {yes, To, NoNote},
			ToIn:      {yes, ToIn, NoNote},
			From:      {yes, FromOut, NoNote},
			FromOut:   {yes, FromOut, NoNote},
			Both:      {yes, Both, NoNote},
		},
		Unsubscribe: { // Table 3
			None:      {yes, None, NoNote},
			NoneOut:   {yes, None, NoNote},
			NoneIn:    {yes, NoneIn, NoNote},
			NoneOutIn: {yes, NoneIn, NoNote},
			To:        {yes, None, NoNote},
			ToIn:      {yes, NoneIn, NoNote},
			From:      {yes, From, NoNote},
			FromOut:   {yes, From, NoNote},
			Both:      {yes, From, NoNote},
		},
		Subscribed: { // Table 4
			None:      {no, None, PreApprove},
			NoneOut:   {no, NoneOut, PreApprove},
			NoneIn:    {yes, From, NoNote},
			NoneOutIn: {yes, FromOut, NoNote},
			To:        {no, To, PreApprove},
			ToIn:      {yes, Both, NoNote},
			From:      {no, From, NoNote},
			FromOut:   {no, FromOut, NoNote},
			Both:      {no, Both, NoNote},
		},
		Unsubscribed: { // Table 5
			None:      {no, None, CancelApproval},
			NoneOut:   {no, NoneOut, CancelApproval},
			NoneIn:    {yes, None, NoNote},
			NoneOutIn: {yes, NoneOut, NoNote},
			To:        {no, To, CancelApproval},
			ToIn:      {yes, To, NoNote},
			From:      {yes, None, NoNote},
			FromOut:   {yes, NoneOut, NoNote},
			Both:      {yes, To, NoNote},
		},
	},
	Inbound: {
		Subscribe: { // Table 6
			None:      {yes, NoneIn, IfApproved},
			NoneOut:   {yes, NoneOutIn, IfApproved},
			NoneIn:    {no, NoneIn, NoNote},
			NoneOutIn: {no, NoneOutIn, NoNote},
			To:        {yes, ToIn, IfApproved},
			ToIn:      {no, ToIn, NoNote},
			From:      {no, From, ReplySubscribed},
			FromOut:   {no, FromOut, ReplySubscribed},
			Both:      {no, Both, ReplySubscribed},
		},
		Unsubscribe: { // Table 7
			None:      {no, None, NoNote},
			NoneOut:   {no, NoneOut, NoNote},
			NoneIn:    {yes, None, ReplyUnsubscribed},
			NoneOutIn: {yes, NoneOut, ReplyUnsubscribed},
			To:        {no, To, NoNote},
			ToIn:      {yes, To, ReplyUnsubscribed},
			From:      {yes, None, ReplyUnsubscribed},
			FromOut:   {yes, NoneOut, ReplyUnsubscribed},
			Both:      {yes, To, ReplyUnsubscribed},
		},
		Subscribed: { // Table 8
			None:      {no, None, NoNote},
			NoneOut:   {yes, To, NoNote},
			NoneIn:    {no, NoneIn, NoNote},
			NoneOutIn: {yes, ToIn, NoNote},
			To:        {no, To, NoNote},
			ToIn:      {no, ToIn, NoNote},
			From:      {no, From, NoNote},
			FromOut:   {yes, Both, NoNote},
			Both:      {no, Both, NoNote},
		},
		Unsubscribed: { // Table 9
			None:      {no, None, NoNote},
			NoneOut:   {yes, None, NoNote},
			NoneIn:    {no, NoneIn, NoNote},
			NoneOutIn: {yes, NoneIn, NoNote},
			To:        {yes, None, NoNote},
			ToIn:      {yes, NoneIn, NoNote},
			From:      {no, From, NoNote},
			FromOut:   {yes, From, NoNote},
			Both:      {yes, From, NoNote},
		},
	},
}

// Lookup returns what RFC 6121 §A prescribes for an action in a state.
func Lookup(d Direction, a Action, s State) Cell { return table[d][a][s&15] }
