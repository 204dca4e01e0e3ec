package contact

import "testing"

func TestAddressesAreURIs(t *testing.T) {
	good := Config{Abuse: []string{"mailto:abuse@example.org", "xmpp:abuse@example.org"}, Status: []string{"https://status.example.org"}}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for _, bad := range []string{"abuse@example.org", "", "::", "/status"} {
		if err := (&Config{Status: []string{bad}}).Validate(); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
