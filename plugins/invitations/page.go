package invitations

import (
	"context"
	"crypto/rand"
	"embed"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"strings"

	"golang.org/x/text/language"
	"rsc.io/qr"

	"parley/plugins"
	"parley/stream"
)

// pagePath is where landing pages are.
const pagePath = "/invite/"

//go:embed page.html
var pageFile embed.FS

// page serves landing pages (XEP-0379 §3.3).
type page struct {
	env      plugins.Env
	tokens   *Tokens
	template *template.Template
}

var _ stream.Component = (*page)(nil)

func newPage(env plugins.Env, _ plugins.Config) (plugins.Component, error) {
	t, err := plugins.Need[*Tokens](env, Name)
	if err != nil {
		return nil, err
	}
	parsed, err := template.ParseFS(pageFile, "page.html")
	if err != nil {
		return nil, fmt.Errorf("landing page: %w", err)
	}
	return &page{env, t, parsed}, nil
}

// Start implements plugins.Component.
func (*page) Start(context.Context) error { return nil }

// Stop implements plugins.Component.
func (*page) Stop(context.Context) error { return nil }

// Register implements stream.Component.
func (p *page) Register(r *stream.Registrar) {
	r.HTTP("GET "+pagePath+"{token}", http.HandlerFunc(p.serve))
}

// words are what the page says, in the languages that it speaks.
type words struct{ Lang, Title, Invites, Joins, Open, Install, Copy, Until, Gone string }

// speak chooses by Accept-Language (RFC 9110 §12.5.4); the first is for everybody else.
func speak(header string) words {
	texts := []words{
		{"en", "Invitation", "invites you to chat.", "You are invited to an account here.", "Open the invitation",
			"Nothing happens? Install an XMPP app, then come back. On a phone, scan the code with it.", "Or copy this into your app:", "Good until", "This invitation is unknown, used up, or too old."},
		{"zh", "邀请", "邀请您聊天。", "邀请您在此注册账号。", "打开邀请",
			"没有反应？请先安装一个 XMPP 应用，然后回到此页。也可以用手机应用扫描二维码。", "或将此链接复制到应用中：", "有效期至", "此邀请不存在、已被使用或已过期。"},
	}
	m := language.NewMatcher([]language.Tag{language.English, language.Chinese})
	wanted, _, err := language.ParseAcceptLanguage(header)
	if err != nil {
		return texts[0]
	}
	_, at, _ := m.Match(wanted...)
	return texts[at]
}

// shown is what the template gets.
type shown struct {
	Words               words
	Known               bool
	Inviter, URI, Until string
	Link                template.URL // of a scheme that is ours to vouch for
	QR                  template.HTML
	Nonce               string
}

func (p *page) serve(w http.ResponseWriter, r *http.Request) {
	s := shown{Words: speak(r.Header.Get("Accept-Language")), Nonce: rand.Text()}
	token := r.PathValue("token")
	one, err := p.tokens.Look(r.Context(), token)
	status := http.StatusOK
	switch {
	case errors.Is(err, ErrUnknown):
		status = http.StatusNotFound
	case err != nil:
		p.env.Log.Error("invitation not looked up", "err", err)
		http.Error(w, "try again later", http.StatusServiceUnavailable)
		return
	default:
		s.Known, s.URI, s.Until = true, one.URI(token), one.Expires.UTC().Format("2006-01-02 15:04 UTC")
		s.Link = template.URL(s.URI) //nolint:gosec // made here of prepared addresses and a token that was found
		if !one.Inviter.IsZero() {
			s.Inviter = one.Inviter.String()
		}
		if s.QR, err = picture(s.URI); err != nil {
			p.env.Log.Error("QR code", "err", err)
		}
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'nonce-"+s.Nonce+"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer") // the address holds the token
	h.Set("Cache-Control", "no-store")
	h.Set("Vary", "Accept-Language")
	w.WriteHeader(status)
	if err := p.template.Execute(w, s); err != nil {
		p.env.Log.Debug("landing page not sent", "err", err)
	}
}

// margin is that of a code, in modules (ISO/IEC 18004).
const margin = 4

// picture is a QR code as SVG: one path of its dark modules.
func picture(text string) (template.HTML, error) {
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		return "", fmt.Errorf("QR code: %w", err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %[1]d %[1]d" role="img" aria-label="QR"><path fill="#fff" d="M0 0h%[1]dv%[1]dH0z"/><path d="`, code.Size+2*margin)
	for y := range code.Size {
		for x := range code.Size {
			if code.Black(x, y) {
				fmt.Fprintf(&b, "M%d %dh1v1h-1z", x+margin, y+margin)
			}
		}
	}
	b.WriteString(`"/></svg>`)
	return template.HTML(b.String()), nil //nolint:gosec // numbers alone
}
