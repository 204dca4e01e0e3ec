// Command specref holds the code to the standards it names.
//
// Every comment of the form "RFC 6121 §8.5.2", "XEP-0045 §7.2" or "rule 37" in
// Go files and protocol scripts is a reference. specref checks that the section
// exists, that every rule of the contract that is due has a test, that no row
// of the compliance suite (XEP-0479) that was proven is lost, and writes
// docs/conformance.md and doap.xml from what it finds.
//
//	specref -check   fail on references to nowhere, rules without a test and lost rows of the suite
//	specref -write   write the documents
package main

import (
	"embed"
	"flag"
	"fmt"
	"io"
	"os"
)

//go:embed data
var data embed.FS

func main() {
	check := flag.Bool("check", false, "fail on references to nowhere, rules without a test and lost rows of the suite")
	write := flag.Bool("write", false, "write docs/conformance.md and doap.xml")
	root := flag.String("root", ".", "the repository")
	flag.Parse()
	if err := run(os.Stdout, *root, *check, *write); err != nil {
		fmt.Fprintln(os.Stderr, "specref:", err)
		os.Exit(1)
	}
}

func run(out io.Writer, root string, check, write bool) error {
	std, err := loadStandards()
	if err != nil {
		return err
	}
	rules, err := loadRules()
	if err != nil {
		return err
	}
	demands, err := loadDemands()
	if err != nil {
		return err
	}
	found, err := scan(root)
	if err != nil {
		return err
	}
	problems := std.wrong(found)
	problems = append(problems, untested(rules, found)...)
	problems = append(problems, lost(demands, found)...)
	docs := map[string]string{
		"docs/conformance.md": conformance(std, rules, demands, found),
		"doap.xml":            doap(std, demands, found),
	}
	for name, text := range docs {
		if write {
			if err := os.WriteFile(root+"/"+name, []byte(text), 0o644); err != nil {
				return err
			}
		}
	}
	fmt.Fprintf(out, "%d references, %d rules, %d of them tested\n", len(found), len(rules), tested(rules, found))
	for _, p := range problems {
		fmt.Fprintln(out, p)
	}
	if check && len(problems) > 0 {
		return fmt.Errorf("%d problems", len(problems))
	}
	return nil
}
