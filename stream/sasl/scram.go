package sasl

import (
	"context"
	"crypto/subtle"
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
)

// scram is the state between SCRAM's two messages (RFC 5802 §5).
type scram struct {
	x     *exchange
	first clientFirst
	cbind []byte // the channel binding data, empty without binding
	cred  credential
	nonce string
	sent  string // server-first-message
}

func scramFirst(x *exchange) step { return (&scram{x: x}).start }

// start answers client-first-message with salt, iteration count and nonce.
func (s *scram) start(ctx context.Context, response []byte) ([]byte, step, *Failure) {
	first, ok := parseClientFirst(string(response))
	if !ok {
		return nil, nil, fail(MalformedRequest, "")
	}
	if err := s.bind(first); err != nil {
		return nil, nil, err
	}
	if err := s.x.claim(first.username, first.authzid); err != nil {
		return nil, nil, err
	}
	cred, err := s.x.srv.credential(ctx, s.x.account, s.x.mech.Hash)
	if err != nil {
		return nil, nil, err
	}
	s.first, s.cred = first, cred
	s.nonce = first.nonce + s.x.srv.nonce()
	s.sent = "r=" + s.nonce + ",s=" + base64.StdEncoding.EncodeToString(cred.keys.Salt) + ",i=" + strconv.Itoa(cred.keys.Iterations)
	if s.x.srv.cfg.Downgrade {
		s.sent += ",h=" + s.x.ses.Offer.Digest(s.x.mech.Hash)
	}
	return []byte(s.sent), s.finish, nil
}

// bind judges the channel binding flag (RFC 5802 §6). Nothing here depends on the account.
func (s *scram) bind(first clientFirst) *Failure {
	switch {
	case first.flag == "y" && s.x.ses.Offer.bound(s.x.srv.table):
		// The client saw no -PLUS where there was one: somebody removed it on the way.
		return fail(NotAuthorized, "channel binding downgrade")
	case s.x.mech.ChannelBinding != (first.flag == "p"):
		return fail(MalformedRequest, "channel binding flag does not fit the mechanism")
	case first.flag != "p":
		return nil
	}
	if !slices.Contains(s.x.ses.Offer.Bindings, first.binding) {
		return fail(MalformedRequest, "unsupported channel binding type")
	}
	if s.cbind = s.x.ses.Binding.Data(first.binding); s.cbind == nil {
		return fail(MalformedRequest, "unsupported channel binding type")
	}
	return nil
}

// finish checks client-final-message and proves that the server knows the keys, too.
func (s *scram) finish(_ context.Context, response []byte) ([]byte, step, *Failure) {
	final, ok := parseClientFinal(string(response))
	keys := s.cred.keys
	if !ok || len(final.proof) != keys.Hash.Size() {
		return nil, nil, fail(MalformedRequest, "")
	}
	// RFC 5802 §5.1 "r", §6 "c=": both are compared before the proof, for every user alike.
	if final.nonce != s.nonce || subtle.ConstantTimeCompare(final.cbind, append([]byte(s.first.gs2), s.cbind...)) != 1 {
		return nil, nil, fail(NotAuthorized, "")
	}
	auth := []byte(s.first.bare + "," + s.sent + "," + final.withoutProof)
	k := s.x.srv.kdf
	clientKey := make([]byte, keys.Hash.Size())
	subtle.XORBytes(clientKey, final.proof, k.hmac(keys.Hash, keys.StoredKey, auth))
	proven := subtle.ConstantTimeCompare(k.sum(keys.Hash, clientKey), keys.StoredKey) == 1
	signature := k.hmac(keys.Hash, keys.ServerKey, auth)
	if err := s.cred.verdict(proven); err != nil {
		return nil, nil, err
	}
	s.x.result.Data = []byte("v=" + base64.StdEncoding.EncodeToString(signature))
	return nil, nil, nil
}

// Digest is XEP-0474's hash of what was announced (§6.1), in base64: sorted mechanisms, and after %x1F the sorted
// channel bindings if there are any. FAST's mechanisms are not among them: they stand in <fast/>.
func (o Offer) Digest(h Hash) string {
	names := slices.Sorted(slices.Values(o.Mechanisms))
	s := strings.Join(names, "\x1e")
	if len(o.Bindings) > 0 {
		var types []string
		for _, t := range o.Bindings {
			types = append(types, string(t))
		}
		slices.Sort(types)
		s += "\x1f" + strings.Join(types, "\x1e")
	}
	return base64.StdEncoding.EncodeToString(kdf{}.sum(h, []byte(s)))
}
