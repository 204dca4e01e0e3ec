package jid

// A class says of each ASCII character what it is good for without any mapping.
type class uint8

const (
	plainLocal    class = 1 << iota // IdentifierClass (RFC 8264 §9.11), neither upper case nor of RFC 7622 §3.3.1
	plainResource                   // FreeformClass (RFC 8264 §9.11, §9.12) below U+0080
	plainLabel                      // lower-case letters, digits and hyphen: an NR-LDH label (RFC 5890 §2.3.1)
)

var classes = classTable()

func classTable() (t [256]class) {
	for c := byte(' '); c <= '~'; c++ {
		t[c] = plainResource
		if c > ' ' && (c < 'A' || c > 'Z') {
			t[c] |= plainLocal
		}
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' {
			t[c] |= plainLabel
		}
	}
	for _, c := range []byte(`"&'/:<>@`) { // RFC 7622 §3.3.1
		t[c] &^= plainLocal
	}
	return t
}

// isPlain reports whether preparation would leave s as it is; so it does with an absent part.
func isPlain(s string, want class) bool {
	if len(s) > maxPart {
		return false
	}
	for i := range len(s) {
		if classes[s[i]]&want == 0 {
			return false
		}
	}
	return true
}

// isPlainDomain reports whether s consists of lower-case NR-LDH labels that IDNA has nothing to say about.
func isPlainDomain(s string) bool {
	if s == "" || len(s) > maxPart {
		return false
	}
	start := 0 // of the label
	for i := 0; i <= len(s); i++ {
		if i < len(s) && s[i] != '.' {
			if classes[s[i]]&plainLabel == 0 {
				return false
			}
			continue
		}
		label := s[start:i]
		switch {
		case label == "", len(label) > maxLabel, label[0] == '-', label[len(label)-1] == '-':
			return false
		case len(label) > 3 && label[2] == '-' && label[3] == '-': // A-labels and other R-LDH labels
			return false
		}
		start = i + 1
	}
	return true
}
