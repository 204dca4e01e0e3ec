package abuse

import (
	"bufio"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"parley/parser/stanza"
	"parley/plugins"
	"parley/plugins/plugintest"
)

// jumper is a clock that somebody sets.
type jumper struct {
	plugins.SystemClock
	mu  sync.Mutex
	off time.Duration
}

func (j *jumper) Now() time.Time {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.SystemClock.Now().Add(j.off).Round(0) // no monotonic reading, as after a jump
}

func (j *jumper) set(d time.Duration) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.off = d
}

// The clock goes back and forth: nobody is disconnected, no message changes
// its place, no id comes twice.
func TestReliability29ClockJumps(t *testing.T) {
	clock := &jumper{}
	w := startWith(t, plugintest.Options{Clock: clock, Config: configured([]string{unlimited, "timeouts: {idle: 0s}"}, nil)})
	writer, reader := w.login("writer", "w"), w.login("reader", "r")
	w.say(reader, "<presence/>")
	jumps := []time.Duration{0, time.Hour, -time.Hour, 48 * time.Hour, -30 * 24 * time.Hour, time.Second, 0}
	ids := map[string]bool{}
	n := 0
	w.during(8, func() {
		for _, j := range jumps {
			clock.set(j)
			for range 10 {
				w.say(writer, "<message to='reader@localhost' type='chat' id='c%d'><body>b</body></message>", n)
				el := w.next(reader, func(el *stanza.Element) bool { return el.Name.Local == "message" })
				if want := fmt.Sprintf("c%d", n); el.Get("id") != want {
					t.Errorf("%s where %s was due", el.Get("id"), want)
				}
				sid := el.Child("urn:xmpp:sid:0", "stanza-id").Get("id")
				if ids[sid] {
					t.Errorf("stanza-id %s comes twice", sid)
				}
				ids[sid] = true
				n++
			}
			c := w.login("late", "l") // whoever comes meanwhile is let in
			w.until(c)
			c.Close()
		}
	})
	w.say(reader, "<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><max>250</max></set></query></iq>")
	var order []string
	w.next(reader, func(el *stanza.Element) bool {
		if r := el.Child("urn:xmpp:mam:2", "result"); r != nil {
			order = append(order, r.Child("urn:xmpp:forward:0", "forwarded").Child(stanza.NSClient, "message").Get("id"))
		}
		return el.Get("id") == "q"
	})
	if len(order) != n {
		t.Errorf("%d of %d messages are in the archive", len(order), n)
	}
	for i, id := range order {
		if want := fmt.Sprintf("c%d", i); id != want {
			t.Fatalf("message %d of the archive is %s", i, id)
		}
	}
}

// A session costs little, and nothing when it has gone.
func TestReliability34MemoryOfSessions(t *testing.T) {
	const sessions, each = 300, 64 << 10 // with the client's own part, that is here as well
	w := start(t, configured([]string{unlimited}, nil))
	w.account("crowd", secret)
	round := func() (held uint64) {
		before := settledHeap()
		var all []*peer
		for i := range sessions {
			p, err := dialPeer(w.Door("c2s"))
			w.must(err)
			w.must(p.auth("crowd"))
			w.must(p.bind(fmt.Sprintf("r%d", i)))
			all = append(all, p)
		}
		held = grown(before, settledHeap())
		for _, p := range all {
			p.hangUp()
			if _, err := p.rest(); err != nil {
				t.Error(err)
			}
			p.drop()
		}
		return held
	}
	round() // tables grow once
	base, goroutines := settledHeap(), runtime.NumGoroutine()
	if held := round(); held > sessions*each {
		t.Errorf("a session costs %d bytes", held/sessions)
	} else {
		t.Logf("a session with its client costs %d bytes", held/sessions)
	}
	for range 3 {
		round()
	}
	if more := grown(base, settledHeap()); more > 4<<20 {
		t.Errorf("%d bytes are left of sessions that have ended", more)
	}
	if n := runtime.NumGoroutine(); n > goroutines+goroutineSlack {
		t.Errorf("%d goroutines, %d before", n, goroutines)
	}
	w.unharmed()
}

// Every channel in the server has a capacity that the source tells: none, a
// constant or a setting, never the size of what came from outside.
func TestReliability34ChannelsAreBounded(t *testing.T) {
	forSource(t, func(name string, fset *token.FileSet, f *ast.File) {
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) != 2 {
				return true
			}
			fn, _ := call.Fun.(*ast.Ident)
			_, isChan := call.Args[0].(*ast.ChanType)
			if fn == nil || fn.Name != "make" || !isChan {
				return true
			}
			ast.Inspect(call.Args[1], func(n ast.Node) bool {
				if c, ok := n.(*ast.CallExpr); ok && !strings.HasSuffix(name, "router/channel/queue.go") { // one place for each worker, all of them configured
					if id, _ := c.Fun.(*ast.Ident); id != nil && id.Name == "len" {
						t.Errorf("%s: a channel as large as something is long", fset.Position(call.Pos()))
					}
				}
				return true
			})
			return true
		})
	})
}

// forSource shows f every file of the server that is no test.
func forSource(t *testing.T, f func(name string, fset *token.FileSet, file *ast.File)) {
	t.Helper()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	fset, files := token.NewFileSet(), 0
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (strings.HasPrefix(d.Name(), ".") && path != root || d.Name() == "testdata" || d.Name() == "plugintest"):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		files++
		f(path, fset, file)
		return nil
	})
	if err != nil || files < 50 {
		t.Fatalf("%d files: %v", files, err)
	}
}

// childEnv makes the test binary the server of TestReliability35.
const childEnv = "PARLEY_ABUSE_CHILD"

// childFiles is how many descriptors that server has left for connections.
const childFiles = 40

// TestReliability35Child is the server whose descriptors run out: a part of
// TestReliability35Descriptors, which runs it in a process of its own.
func TestReliability35Child(t *testing.T) {
	if os.Getenv(childEnv) == "" {
		return
	}
	w := start(t, configured([]string{unlimited, "timeouts: {login: 60s}"}, nil))
	open, err := os.ReadDir("/proc/self/fd")
	w.must(err)
	n := uint64(len(open) + childFiles)
	w.must(syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: n, Max: n}))
	fmt.Printf("door %s\nhttp %s\n", w.Door("c2s"), w.Door("http"))
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n') // until the parent is done
	w.log.mu.Lock()
	defer w.log.mu.Unlock()
	fmt.Printf("warned %d\n", w.log.accepts)
}

// A server without a descriptor left goes on with those it has, tells those who
// come that there is no room, answers operators, does not fill its log, and
// accepts again as soon as it can.
func TestReliability35Descriptors(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestReliability35Child$")
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	lines := bufio.NewScanner(out)
	door, web := report(t, lines, "door "), report(t, lines, "http ")

	a, b := childClient(t, door, "a"), childClient(t, door, "b")
	var crowd []*peer
	refused := 0
	for range 3 * childFiles {
		p, err := dialPeer(door)
		if err != nil {
			t.Fatal(err)
		}
		defer p.drop()
		crowd = append(crowd, p)
		if err := p.say(header); err != nil {
			t.Fatal(err)
		}
		if err := p.fill(); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(p.got), "<stream:features") {
			if got, err := p.rest(); err != nil || !strings.Contains(got, "<resource-constraint ") {
				t.Fatalf("turned away with %q: %v", got, err)
			}
			if refused++; refused == 5 {
				break
			}
		}
	}
	if refused == 0 {
		t.Fatalf("%d connections and still room", len(crowd))
	}
	for range 3 { // the metrics page needs no descriptor beside its connection's
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}).Get("http://" + web + "/metrics")
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || !strings.Contains(string(text), `parley_connections_refused_total{reason="descriptors"}`) {
			t.Errorf("operators see %s %v", resp.Status, err)
		}
	}
	for range 20 { // those who are in notice nothing
		id := fmt.Sprintf("id='%d'", time.Now().UnixNano())
		if err := a.say("<message " + id + " to='alice@localhost/b' type='headline'><body>b</body></message>"); err != nil {
			t.Fatal(err)
		}
		if _, err := b.until(id); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range crowd {
		p.drop()
	}
	for room := false; !room; { // the server notices one by one; a hang fails by the test's own limit
		p, err := dialPeer(door)
		if err != nil {
			t.Fatal(err)
		}
		room = p.exchange(header, "</stream:features>") == nil
		p.drop()
	}
	childClient(t, door, "c")
	_, _ = in.Write([]byte("\n"))
	if n := report(t, lines, "warned "); n != "1" {
		t.Errorf("the log says %s times that there are no descriptors, want once", n)
	}
}

// report returns what the child says behind a word.
func report(t *testing.T, lines *bufio.Scanner, word string) string {
	t.Helper()
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), word); ok {
			return rest
		}
	}
	t.Fatalf("the child does not say %q", word)
	return ""
}

// childClient is a session of alice, whom the child has.
func childClient(t *testing.T, door, resource string) *peer {
	t.Helper()
	p, err := dialPeer(door)
	if err == nil {
		t.Cleanup(p.drop)
		if err = p.auth("alice"); err == nil {
			err = p.bind(resource)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}
