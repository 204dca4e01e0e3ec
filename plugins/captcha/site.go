package captcha

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"
)

const (
	// maxVerifying bounds what is verified at one time; one more fails.
	maxVerifying = 32
	maxReply     = 16 << 10 // bytes
)

var errBusy = errors.New("too many codes are being verified")

// site is a page that gives codes, and the service that knows them again.
type site struct {
	cfg    Page
	client *http.Client
	places chan struct{}
	ctx    context.Context // ends when the component does
	cancel context.CancelFunc
	work   sync.WaitGroup // who waits for an answer
}

func newSite(cfg Page) *site {
	s := &site{cfg: cfg, places: make(chan struct{}, maxVerifying)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.client = &http.Client{
		Timeout: cfg.Timeout,
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:      true,
			MaxResponseHeaderBytes: maxReply,
			MaxIdleConnsPerHost:    2,
			IdleConnTimeout:        time.Minute,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the secret goes nowhere else
	}
	return s
}

// close ends what is being verified, and waits for it.
func (s *site) close() {
	s.cancel()
	s.work.Wait()
	s.client.CloseIdleConnections()
}

// page is what somebody opens.
func (s *site) page(challenge string) string {
	u, err := url.Parse(s.cfg.URL)
	if err != nil { // it is validated
		return s.cfg.URL
	}
	q := u.Query()
	q.Set("challenge", challenge)
	u.RawQuery = q.Encode()
	return u.String()
}

// verify asks whether a code is good. An error: nobody can tell. Its caller is in work.
func (s *site) verify(ctx context.Context, remote netip.Addr, challenge, code string) (bool, error) {
	if code = strings.TrimSpace(code); code == "" || len(code) > maxAnswer {
		return false, nil
	}
	select {
	case s.places <- struct{}{}:
	default:
		return false, errBusy
	}
	defer func() { <-s.places }()
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	return s.ask(ctx, url.Values{"secret": {s.cfg.Secret.Reveal()}, "response": {code}, "challenge": {challenge}}, remote)
}

func (s *site) ask(ctx context.Context, v url.Values, remote netip.Addr) (bool, error) {
	if s.cfg.Address && remote.IsValid() {
		v.Set("remoteip", remote.Unmap().String())
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.cfg.Verify, strings.NewReader(v.Encode()))
	if err != nil {
		return false, fmt.Errorf("verify: %w", err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	r, err := s.client.Do(req)
	if err != nil {
		return false, fmt.Errorf("verify: %w", err)
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return false, fmt.Errorf("verify: %s answers %s", s.cfg.Verify, r.Status)
	}
	var out struct {
		Success   *bool    `json:"success"`
		Errors    []string `json:"error-codes"`
		Challenge string   `json:"challenge"` // which one the page gave the code for, when the service knows
	}
	if err := json.NewDecoder(io.LimitReader(r.Body, maxReply)).Decode(&out); err != nil {
		return false, fmt.Errorf("verify: the answer is no JSON: %w", err)
	}
	for _, e := range out.Errors {
		if strings.HasSuffix(e, "-input-secret") { // ours, not the applicant's
			return false, fmt.Errorf("verify: the service says %s", e)
		}
	}
	if out.Success == nil {
		return false, errors.New("verify: the answer says nothing of success")
	}
	return *out.Success && (out.Challenge == "" || out.Challenge == v.Get("challenge")), nil
}
