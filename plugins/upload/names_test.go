package upload

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestCleanName(t *testing.T) {
	for in, want := range map[string]string{
		"a.jpg": "a.jpg", "../../etc/passwd": "passwd", `C:\x\y.png`: "y.png", " a b ": "a b", "très cool.jpg": "très cool.jpg",
		"a\u202egpj.exe": "agpj.exe", "a\x00\x7f\u0085b": "ab", "..": "", ".": "", "": "", "/": "", "x/": "", ".hidden": ".hidden",
		strings.Repeat("ä", 300) + ".jpeg": strings.Repeat("ä", 97) + ".jpeg",
	} {
		if got, ok := cleanName(in); ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q, %v", in, got, ok)
		}
	}
}

func TestCleanType(t *testing.T) {
	for in, want := range map[string]string{"image/JPEG": "image/jpeg", "text/plain; charset=utf-8": "text/plain", "": "", "picture": "-", "a/b/c": "-", "text/plain\r\nX: y": "-", "audio/ogg; codecs=": "audio/ogg"} {
		if got, ok := cleanType(in); ok != (want != "-") || ok && got != want {
			t.Errorf("%q: %q, %v", in, got, ok)
		}
	}
}

// Whatever a file is called, its address leads back to it.
func FuzzName(f *testing.F) {
	f.Add("très cool.jpg")
	f.Add(`a/b\c?d#e%2f;=&+.x`)
	f.Fuzz(func(t *testing.T, in string) {
		if !utf8.ValidString(in) { // no XML
			return
		}
		name, ok := cleanName(in)
		if !ok {
			return
		}
		if len(name) > maxName || strings.ContainsAny(name, "/\\\x00\r\n") || !utf8.ValidString(name) {
			t.Fatalf("%q", name)
		}
		file := &File{Name: name, token: newToken()}
		u, err := url.Parse("https://files.example" + file.path())
		if err != nil {
			t.Fatalf("%q: %v", file.path(), err)
		}
		text, got, _ := strings.Cut(strings.TrimPrefix(u.Path, root), "/")
		if back, ok := parseToken(text); !ok || back != file.token || got != name {
			t.Errorf("%q leads to %q", file.path(), got)
		}
		mux := http.NewServeMux() // and the house's own way there does not change it
		mux.Handle(root, http.NotFoundHandler())
		if _, pattern := mux.Handler(&http.Request{Method: http.MethodGet, URL: u, Host: "files.example"}); pattern != root {
			t.Errorf("%q is led elsewhere: %q", u.Path, pattern)
		}
	})
}

// What is served as a picture begins as one.
func FuzzJudge(f *testing.F) {
	f.Add("image/png", []byte("\x89PNG\r\n\x1a\n"))
	f.Add("text/html", []byte("<html>"))
	f.Fuzz(func(t *testing.T, typ string, first []byte) {
		served, shown := judge(typ, first)
		if shown && (served != typ || safeTypes[typ] == nil || len(first) == 0) {
			t.Errorf("%s is shown as %s", typ, served)
		}
	})
}
