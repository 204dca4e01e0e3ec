package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"parley/plugins"
	"parley/plugins/config"
	"parley/storage"
	"parley/storage/atrest"
)

// maxBody is the largest request, in bytes.
const maxBody = 1 << 20

// Problem is an error as clients see it (RFC 9457 §3).
type Problem struct {
	Type   string `json:"type,omitempty"` // RFC 9457 §3.1.1; absent: about:blank
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
}

// Error implements error.
func (p *Problem) Error() string {
	if p.Detail != "" {
		return p.Detail
	}
	return p.Title
}

// Fail makes a Problem; its title is that of the status (RFC 9457 §4.2.1).
func Fail(status int, format string, args ...any) *Problem {
	return &Problem{Title: http.StatusText(status), Status: status, Detail: fmt.Sprintf(format, args...)}
}

// statuses say which status an error becomes; the first that matches counts.
func statuses() []struct {
	err    error
	status int
} {
	return []struct {
		err    error
		status int
	}{
		{plugins.ErrUnknown, http.StatusNotFound},
		{plugins.ErrElsewhere, http.StatusMisdirectedRequest},
		{plugins.ErrNode, http.StatusNotFound},
		{plugins.ErrAlone, http.StatusConflict},
		{plugins.ErrPhase, http.StatusConflict},
		{plugins.ErrRequired, http.StatusConflict},
		{plugins.ErrDomain, http.StatusConflict},
		{plugins.ErrOvertaken, http.StatusConflict},
		{atrest.ErrNoKey, http.StatusNotFound},
		{atrest.ErrNeeded, http.StatusConflict},
		{storage.ErrUnavailable, http.StatusServiceUnavailable},
		{context.DeadlineExceeded, http.StatusGatewayTimeout},
		{errors.ErrUnsupported, http.StatusNotImplemented},
	}
}

// known reports whether an error has a status of its own.
func known(err error) bool {
	for _, row := range statuses() {
		if errors.Is(err, row.err) {
			return true
		}
	}
	return false
}

// asProblem turns an error into what is sent. Who may open the socket may see
// what went wrong.
func asProblem(err error) *Problem {
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	var findings config.Findings
	if errors.As(err, &findings) {
		return Fail(http.StatusUnprocessableEntity, "%s", err.Error())
	}
	for _, row := range statuses() {
		if errors.Is(err, row.err) {
			return Fail(row.status, "%s", err.Error())
		}
	}
	return Fail(http.StatusInternalServerError, "%s", err.Error())
}

// Write sends a value as JSON.
func Write(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client has hung up: nobody to tell
}

// WriteError sends an error as a problem document (RFC 9457 §3).
func WriteError(w http.ResponseWriter, err error) {
	p := asProblem(err)
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p)
}

// Read decodes the request's body, strictly.
func Read(r *http.Request, into any) error {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return Fail(http.StatusBadRequest, "request body: %v", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Fail(http.StatusBadRequest, "request body: more than one value")
	}
	return nil
}
