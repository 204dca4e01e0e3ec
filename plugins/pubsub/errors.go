package pubsub

import "parley/parser/stanza"

// failure is an error with a condition of XEP-0060's own (§11, §17.2).
func failure(c stanza.Condition, app, text string) *stanza.Error {
	e := stanza.NewError(c, text)
	if app != "" {
		e.App = stanza.El(NSErrors, app)
	}
	return e
}

// unsupported is a feature that a node does not have (XEP-0060 §11).
func unsupported(feature string) *stanza.Error {
	e := failure(stanza.FeatureNotImplemented, "unsupported", "")
	e.App.With("feature", feature)
	return e
}

// What askers hear. The texts that name a limit are for people (reliability row
// 18).
func errNoNode() error { return stanza.NewError(stanza.ItemNotFound, "there is no such node") }
func errNoItem() error { return stanza.NewError(stanza.ItemNotFound, "there is no such item") }
func errForbidden() error {
	return stanza.NewError(stanza.Forbidden, "")
}
func errNodeRequired() error {
	return failure(stanza.BadRequest, "nodeid-required", "") // XEP-0060 §7.2.3.3
}
func errItemRequired() error { return failure(stanza.BadRequest, "item-required", "") }

// errLimit says which limit of an account is reached.
func errLimit(which string) error {
	return stanza.NewError(stanza.PolicyViolation, which)
}

// errStranger is what somebody hears of an account that shows them nothing, be
// it that it does not exist (rule 35, rule 65, RFC 6121 §8.5.1).
func errStranger() error { return stanza.NewError(stanza.ServiceUnavailable, "") }

// tooMany is XEP-0060 §6.1.3.9.
func tooMany(which string) error {
	e := failure(stanza.PolicyViolation, "too-many-subscriptions", which)
	e.Type = stanza.Wait
	return e
}
