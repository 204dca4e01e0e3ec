package main

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// passwordFrom says where a password is from: the terminal, twice and without
// echo; standard input; or nowhere, then one is made.
type passwordFrom struct{ stdin, generate bool }

func (p *passwordFrom) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&p.stdin, "password-stdin", false, "read the password from standard input, one line")
	cmd.Flags().BoolVar(&p.generate, "generate", false, "make a password and print it")
	cmd.MarkFlagsMutuallyExclusive("password-stdin", "generate")
}

// shown is the password if it has to be shown.
func (p *passwordFrom) shown(password string) string {
	if p.generate {
		return password
	}
	return ""
}

func (p *passwordFrom) read(cmd *cobra.Command, jid string) (string, error) {
	switch {
	case p.generate:
		return newPassword(), nil
	case p.stdin:
		return firstLine(cmd.InOrStdin())
	}
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return "", errors.New("there is no terminal to ask for the password: use --password-stdin or --generate")
	}
	first, err := ask(in, cmd.ErrOrStderr(), "Password for "+jid+": ")
	if err != nil {
		return "", err
	}
	second, err := ask(in, cmd.ErrOrStderr(), "Again: ")
	if err != nil {
		return "", err
	}
	if first != second {
		return "", errors.New("the two are not the same; nothing was changed")
	}
	if first == "" {
		return "", errors.New("the password is empty; nothing was changed")
	}
	return first, nil
}

// maxLine bounds a password on standard input, in bytes.
const maxLine = 64 << 10

func firstLine(r io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, maxLine)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("password: %w", err)
	}
	line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
	if line == "" {
		return "", errors.New("standard input holds no password")
	}
	return line, nil
}

// ask reads a line without echo. Ctrl-C gives the terminal its echo back
// before it ends the program.
func ask(in *os.File, out io.Writer, prompt string) (string, error) {
	fd := int(in.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", fmt.Errorf("terminal: %w", err)
	}
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	defer close(done)
	defer signal.Stop(interrupted)
	go func() {
		select {
		case <-interrupted:
			_ = term.Restore(fd, before)
			fmt.Fprintln(out)
			os.Exit(130)
		case <-done:
		}
	}()
	fmt.Fprint(out, prompt)
	line, err := term.ReadPassword(fd)
	fmt.Fprintln(out)
	if err != nil {
		return "", fmt.Errorf("password: %w", err)
	}
	return string(line), nil
}

const (
	passwordLetters = "abcdefghjkmnpqrstuvwxyz23456789" // none that look like another
	passwordGroups  = 4
	passwordGroup   = 4 // letters; 16 of 31 are 79 bits
)

// newPassword makes a password that can be typed on a telephone.
func newPassword() string {
	var b strings.Builder
	for i := range passwordGroups * passwordGroup {
		if i > 0 && i%passwordGroup == 0 {
			b.WriteByte('-')
		}
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(passwordLetters))))
		if err != nil {
			panic("crypto/rand: " + err.Error()) // it never fails
		}
		b.WriteByte(passwordLetters[n.Int64()])
	}
	return b.String()
}
