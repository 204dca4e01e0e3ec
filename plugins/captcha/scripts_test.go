package captcha_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"parley/plugins"
	"parley/plugins/admin"
	"parley/plugins/admincommands"
	"parley/plugins/captcha"
	"parley/plugins/commands"
	"parley/plugins/invitations"
	"parley/plugins/plugintest"
	"parley/plugins/register"
)

func house() []plugins.Plugin {
	return plugintest.Basics(admin.Plugin, commands.Plugin, admincommands.Plugin, invitations.Plugin, register.Plugin, captcha.Plugin)
}

func TestScripts(t *testing.T) {
	plugintest.Run(t, plugintest.Options{Plugins: house(), Config: "servers: {streamer: {components: {accounts: {iterations: 4096}}}}"}, "testdata/*.txtar")
}

// What a page has to do with it needs somebody who knows its codes again.
func TestPageScripts(t *testing.T) {
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.FormValue("secret") != "hush":
			w.WriteHeader(http.StatusForbidden)
		case r.FormValue("response") == "broken":
			w.WriteHeader(http.StatusInternalServerError)
		default:
			fmt.Fprintf(w, `{"success": %t}`, r.FormValue("response") == "good")
		}
	}))
	t.Cleanup(service.Close)
	plugintest.Run(t, plugintest.Options{Plugins: house(), Config: `
servers:
  streamer:
    components:
      accounts: {iterations: 4096}
      register: {enabled: true, per_hour: 0}
      captcha: {enabled: true, kind: page, page: {url: "https://join.example/", verify: "` + service.URL + `", secret: hush}}
`}, "testdata/page/*.txtar")
}

// While a code is verified components are replaced, and it passes all the same.
func TestVerifyingHoldsNothingUp(t *testing.T) {
	arrived, answer := make(chan struct{}), make(chan struct{})
	service := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(arrived)
		<-answer
		_, _ = w.Write([]byte(`{"success": true}`))
	}))
	t.Cleanup(service.Close)
	h := plugintest.Start(t, plugintest.Options{Plugins: house(), Config: `
servers:
  streamer:
    components:
      accounts: {iterations: 4096}
      register: {enabled: true}
      captcha: {enabled: true, kind: page, page: {url: "https://join.example/", verify: "` + service.URL + `", secret: hush, timeout: 30s}}
`})
	s, err := net.Dial("tcp", h.Door("c2s"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	in := bufio.NewReader(s)
	say := func(out, until string) (got string) {
		t.Helper()
		_ = s.SetDeadline(time.Now().Add(time.Minute))
		if _, err := s.Write([]byte(out)); err != nil {
			t.Fatal(err)
		}
		for !strings.HasSuffix(got, until) {
			b, err := in.ReadByte()
			if err != nil {
				t.Fatalf("%v after %s", err, got)
			}
			got += string(b)
		}
		return got
	}
	say("<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0' to='localhost'>", "</stream:features>")
	form := say("<iq type='get' id='a'><query xmlns='jabber:iq:register'/></iq>", "</iq>")
	id := regexp.MustCompile(`challenge=([A-Z2-7]+)`).FindStringSubmatch(form)
	if id == nil {
		t.Fatal(form)
	}
	var verifying sync.WaitGroup
	verifying.Go(func() {
		<-arrived
		defer close(answer)
		if _, err := h.Host().Control().Reconfigure(t.Context(), "test", "streamer", "register", map[string]string{"min_password": "9"}); err != nil {
			t.Error(err)
		}
	})
	if got := say("<iq type='set' id='b'><query xmlns='jabber:iq:register'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'><value>jabber:iq:register</value></field><field var='challenge'><value>"+id[1]+"</value></field><field var='username'><value>bill</value></field><field var='password'><value>secret-123</value></field><field var='qa'><value>good</value></field></x></query></iq>", ">"); !strings.Contains(got, "type='result'") {
		t.Error(got)
	}
	verifying.Wait()
}
