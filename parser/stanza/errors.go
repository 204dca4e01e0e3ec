package stanza

import (
	"parley/parser/jid"
)

// Condition is a stanza error condition: the name of its element in NSStanzas (RFC 6120 §8.3.3).
type Condition string

// The conditions of RFC 6120 §8.3.3.
const (
	BadRequest            Condition = "bad-request"
	Conflict              Condition = "conflict"
	FeatureNotImplemented Condition = "feature-not-implemented"
	Forbidden             Condition = "forbidden"
	Gone                  Condition = "gone"
	InternalServerError   Condition = "internal-server-error"
	ItemNotFound          Condition = "item-not-found"
	JIDMalformed          Condition = "jid-malformed"
	NotAcceptable         Condition = "not-acceptable"
	NotAllowed            Condition = "not-allowed"
	NotAuthorized         Condition = "not-authorized"
	PolicyViolation       Condition = "policy-violation"
	RecipientUnavailable  Condition = "recipient-unavailable"
	Redirect              Condition = "redirect"
	RegistrationRequired  Condition = "registration-required"
	RemoteServerNotFound  Condition = "remote-server-not-found"
	RemoteServerTimeout   Condition = "remote-server-timeout"
	ResourceConstraint    Condition = "resource-constraint"
	ServiceUnavailable    Condition = "service-unavailable"
	SubscriptionRequired  Condition = "subscription-required"
	UndefinedCondition    Condition = "undefined-condition"
	UnexpectedRequest     Condition = "unexpected-request"
)

// ErrorType says what the sender can do about an error (RFC 6120 §8.3.2).
type ErrorType string

// The types of RFC 6120 §8.3.2.
const (
	Auth     ErrorType = "auth"     // retry after providing credentials
	Cancel   ErrorType = "cancel"   // do not retry
	Continue ErrorType = "continue" // proceed, it was only a warning
	Modify   ErrorType = "modify"   // retry after changing the data
	Wait     ErrorType = "wait"     // retry after waiting
)

// DefaultType is the error type RFC 6120 §8.3.3 associates with the condition. Cancel for unknown ones.
func (c Condition) DefaultType() ErrorType {
	if t, ok := defaultTypes[c]; ok {
		return t
	}
	return Cancel
}

// defaultTypes lists what is not Cancel. RFC 6120 §8.3.3.1–22
var defaultTypes = map[Condition]ErrorType{
	BadRequest:           Modify,
	Forbidden:            Auth,
	JIDMalformed:         Modify,
	NotAcceptable:        Modify,
	NotAuthorized:        Auth,
	PolicyViolation:      Modify,
	RecipientUnavailable: Wait,
	Redirect:             Modify,
	RegistrationRequired: Auth,
	RemoteServerTimeout:  Wait,
	ResourceConstraint:   Wait,
	SubscriptionRequired: Auth,
	UnexpectedRequest:    Wait,
}

// Error is a stanza error (RFC 6120 §8.3). It is an error value, so that a handler may return it as one.
type Error struct {
	Type      ErrorType // empty: the condition's default
	Condition Condition // empty: undefined-condition
	Text      string    // for people; optional
	Address   string    // the new address, for gone and redirect only (RFC 6120 §8.3.3.5, §8.3.3.14)
	App       *Element  // application-specific condition; optional
	By        jid.JID   // the entity that generated it; optional
	Beside    *Element  // what stands before it in the stanza (XEP-0045 §7.2); optional
}

var _ error = (*Error)(nil)

// NewError returns an error of the condition's default type (RFC 6120 §8.3.3). text may be empty.
func NewError(c Condition, text string) *Error {
	return &Error{Type: c.DefaultType(), Condition: c, Text: text}
}

// Error gives the condition and the text, for logs.
func (e *Error) Error() string {
	return describe("stanza error ", string(e.Condition), e.Text)
}

// Element returns the <error/>, in NSClient: the namespace of the stanza it will stand in (RFC 6120 §8.3.2).
func (e *Error) Element() *Element {
	typ, cond := e.Type, e.Condition
	if cond == "" {
		cond = UndefinedCondition
	}
	if typ == "" {
		typ = cond.DefaultType()
	}
	el := El(NSClient, "error")
	if !e.By.IsZero() {
		el.With("by", e.By.String())
	}
	el.With("type", string(typ))
	return el.Add(conditionElements(NSStanzas, string(cond), e.Address, e.Text, e.App)...)
}

// ParseError reads an <error/>. It is lenient, for errors come from everywhere: an unknown or missing condition becomes
// undefined-condition (RFC 6120 §8.3.3.21), an unknown type the condition's default. nil when el is nil.
func ParseError(el *Element) *Error {
	if el == nil {
		return nil
	}
	e := &Error{Condition: UndefinedCondition}
	e.By, _ = jid.Parse(el.Get("by"))
	for c := range el.Elements() {
		switch {
		case c.Name.Space != NSStanzas:
			if e.App == nil {
				e.App = c
			}
		case c.Name.Local == "text":
			e.Text = c.Text()
		case knownConditions[Condition(c.Name.Local)]:
			e.Condition = Condition(c.Name.Local)
			e.Address = c.Text()
		}
	}
	switch t := ErrorType(el.Get("type")); t {
	case Auth, Cancel, Continue, Modify, Wait:
		e.Type = t
	default:
		e.Type = e.Condition.DefaultType()
	}
	return e
}

var knownConditions = setOf(BadRequest, Conflict, FeatureNotImplemented, Forbidden, Gone, InternalServerError,
	ItemNotFound, JIDMalformed, NotAcceptable, NotAllowed, NotAuthorized, PolicyViolation, RecipientUnavailable, Redirect,
	RegistrationRequired, RemoteServerNotFound, RemoteServerTimeout, ResourceConstraint, ServiceUnavailable,
	SubscriptionRequired, UndefinedCondition, UnexpectedRequest)

func setOf(cs ...Condition) map[Condition]bool {
	m := make(map[Condition]bool, len(cs))
	for _, c := range cs {
		m[c] = true
	}
	return m
}

// StreamCondition is a stream error condition: the name of its element in NSStreams (RFC 6120 §4.9.3).
type StreamCondition string

// The conditions of RFC 6120 §4.9.3.
const (
	StreamBadFormat              StreamCondition = "bad-format"
	StreamBadNamespacePrefix     StreamCondition = "bad-namespace-prefix"
	StreamConflict               StreamCondition = "conflict"
	StreamConnectionTimeout      StreamCondition = "connection-timeout"
	StreamHostGone               StreamCondition = "host-gone"
	StreamHostUnknown            StreamCondition = "host-unknown"
	StreamImproperAddressing     StreamCondition = "improper-addressing"
	StreamInternalServerError    StreamCondition = "internal-server-error"
	StreamInvalidFrom            StreamCondition = "invalid-from"
	StreamInvalidNamespace       StreamCondition = "invalid-namespace"
	StreamInvalidXML             StreamCondition = "invalid-xml"
	StreamNotAuthorized          StreamCondition = "not-authorized"
	StreamNotWellFormed          StreamCondition = "not-well-formed"
	StreamPolicyViolation        StreamCondition = "policy-violation"
	StreamRemoteConnectionFailed StreamCondition = "remote-connection-failed"
	StreamReset                  StreamCondition = "reset"
	StreamResourceConstraint     StreamCondition = "resource-constraint"
	StreamRestrictedXML          StreamCondition = "restricted-xml"
	StreamSeeOtherHost           StreamCondition = "see-other-host"
	StreamSystemShutdown         StreamCondition = "system-shutdown"
	StreamUndefinedCondition     StreamCondition = "undefined-condition"
	StreamUnsupportedEncoding    StreamCondition = "unsupported-encoding"
	StreamUnsupportedFeature     StreamCondition = "unsupported-feature"
	StreamUnsupportedStanzaType  StreamCondition = "unsupported-stanza-type"
	StreamUnsupportedVersion     StreamCondition = "unsupported-version"
)

// StreamError ends a stream (RFC 6120 §4.9).
type StreamError struct {
	Condition StreamCondition // empty: undefined-condition
	Text      string          // for people; optional
	Address   string          // the other host, for see-other-host only (RFC 6120 §4.9.3.19)
	App       *Element        // application-specific condition; optional
}

var _ error = (*StreamError)(nil)

// Error gives the condition and the text, for logs.
func (e *StreamError) Error() string {
	return describe("stream error ", string(e.Condition), e.Text)
}

// Element returns the <stream:error/> (RFC 6120 §4.9.2).
func (e *StreamError) Element() *Element {
	cond := e.Condition
	if cond == "" {
		cond = StreamUndefinedCondition
	}
	return El(NSStream, "error").Add(conditionElements(NSStreams, string(cond), e.Address, e.Text, e.App)...)
}

// conditionElements are the children both kinds of errors have: condition, text, application-specific condition.
func conditionElements(space, cond, address, text string, app *Element) []*Element {
	els := make([]*Element, 1, 3)
	els[0] = El(space, cond).AddText(address)
	if text != "" {
		els = append(els, El(space, "text").With("xml:lang", "en").AddText(text))
	}
	if app != nil {
		els = append(els, app)
	}
	return els
}

func describe(what, cond, text string) string {
	if cond == "" {
		cond = string(UndefinedCondition)
	}
	if text == "" {
		return what + cond
	}
	return what + cond + ": " + text
}
