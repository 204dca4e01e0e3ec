package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestScanFileFindsReferences(t *testing.T) {
	got := scanFile("a_test.go", []byte("// RFC 6121 §8.5.2.1.1, §8.5.3 and XEP-0045.\n# rules 37 and 38\nfunc TestRule12Authzid(\n"), true)
	want := []reference{
		{standard: "RFC 6121", section: "8.5.2.1.1", file: "a_test.go", line: 1, test: true},
		{standard: "RFC 6121", section: "8.5.3", file: "a_test.go", line: 1, test: true},
		{standard: "XEP-0045", file: "a_test.go", line: 1, test: true},
		{rule: 37, file: "a_test.go", line: 2, test: true},
		{rule: 38, file: "a_test.go", line: 2, test: true},
		{rule: 12, file: "a_test.go", line: 3, test: true},
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(reference{})); d != "" {
		t.Error(d)
	}
}

func TestWrongSectionIsFound(t *testing.T) {
	std, err := loadStandards()
	if err != nil {
		t.Fatal(err)
	}
	wrong := std.wrong([]reference{{standard: "RFC 6121", section: "8.5.2.1.1"}, {standard: "RFC 6121", section: "99.1"}})
	if len(wrong) != 1 {
		t.Errorf("got %q, want the one section that does not exist", wrong)
	}
}
