package stanza

// outcome is what a step of the scanner came to: go on, wait, done, or a fault.
type outcome uint8

const (
	stepOK   outcome = iota
	stepMore         // the bytes end inside the construct
	stepDone         // the element, header, end tag or declaration is complete

	faultChar
	faultUTF8
	faultName
	faultTag
	faultSpace
	faultLess
	faultDuplicate
	faultEndTag
	faultNoOpen
	faultCDATAEnd
	faultAmpersand
	faultCharRef
	faultProlog
	faultDeclaration
	faultPrefixUnknown
	faultPrefixReserved
	faultPrefixEmpty
	faultContentPrefix
	faultEntity
	faultPI
	faultMarkup
	faultEncoding
	faultStray
	faultFrame
	faultBytes
	faultDepth
	faultAttrs
	faultNameBytes
	faultPrefixes
	faultReference
)

// faults gives each fault its wire form.
//
// Ill-encoded UTF-8 is not-well-formed, a fatal error of XML itself; only an
// encoding that is declared, or shown by a UTF-16 mark, is unsupported-encoding.
// Text between first-level elements is well-formed XML that no rule gives a
// meaning to: "XML that cannot be processed", bad-format; invalid-xml would
// claim that we validate against a schema (RFC 6120 §4.9.3.11, §11.4).
var faults = [...]struct {
	condition StreamCondition
	text      string
}{
	faultChar:           {StreamNotWellFormed, "character that XML 1.0 does not allow"},
	faultUTF8:           {StreamNotWellFormed, "invalid UTF-8"},
	faultName:           {StreamNotWellFormed, "malformed name"},
	faultTag:            {StreamNotWellFormed, "malformed tag"},
	faultSpace:          {StreamNotWellFormed, "no white space before an attribute"},
	faultLess:           {StreamNotWellFormed, "'<' inside a tag"},
	faultDuplicate:      {StreamNotWellFormed, "duplicate attribute"},
	faultEndTag:         {StreamNotWellFormed, "mismatched end tag"},
	faultNoOpen:         {StreamNotWellFormed, "end tag without a start tag"},
	faultCDATAEnd:       {StreamNotWellFormed, "']]>' in character data"},
	faultAmpersand:      {StreamNotWellFormed, "malformed reference"},
	faultCharRef:        {StreamNotWellFormed, "reference to a character that XML 1.0 does not allow"},
	faultProlog:         {StreamNotWellFormed, "character data before the root element"},
	faultDeclaration:    {StreamNotWellFormed, "malformed XML declaration"},
	faultPrefixUnknown:  {StreamNotWellFormed, "undeclared namespace prefix"},
	faultPrefixReserved: {StreamNotWellFormed, "reserved namespace prefix or name"},
	faultPrefixEmpty:    {StreamNotWellFormed, "prefix bound to no namespace"},
	faultContentPrefix:  {StreamBadNamespacePrefix, "prefix on an element of the content namespace"}, // RFC 6120 §4.8.5
	faultEntity:         {StreamRestrictedXML, "entity reference"},
	faultPI:             {StreamRestrictedXML, "processing instruction"},
	faultMarkup:         {StreamRestrictedXML, "comment or document type declaration"},
	faultEncoding:       {StreamUnsupportedEncoding, "only UTF-8 is supported"},
	faultStray:          {StreamBadFormat, "character data between elements"},
	faultFrame:          {StreamBadFormat, "a frame begins with '<'"}, // RFC 7395 §3.3.3
	faultBytes:          {StreamPolicyViolation, "element too big"},
	faultDepth:          {StreamPolicyViolation, "elements nested too deeply"},
	faultAttrs:          {StreamPolicyViolation, "too many attributes"},
	faultNameBytes:      {StreamPolicyViolation, "name too long"},
	faultPrefixes:       {StreamPolicyViolation, "too many namespace prefixes"},
	faultReference:      {StreamPolicyViolation, "character reference too long"},
}

// streamError is the wire form of a fault.
func (o outcome) streamError() *StreamError {
	e := &StreamError{Condition: faults[o].condition, Text: faults[o].text}
	if o == faultBytes {
		e.App = El(NSErrors, "stanza-too-big") // RFC 6120 §4.9.3.14
	}
	return e
}
