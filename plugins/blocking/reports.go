package blocking

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"parley/parser/jid"
	"parley/parser/stanza"
	"parley/processor"
	"parley/storage"
	"parley/storage/atrest"
)

// Report is a complaint that came with a block (XEP-0377 §4).
type Report struct {
	ID       int64
	Reporter jid.JID // bare
	Reported jid.JID
	Reason   string   // a URN of the registry, "urn:xmpp:reporting:spam"
	Text     string   // the reporter's words; may be empty
	Stanzas  []string // stanza-ids of what is complained about, "id by" each (XEP-0377 §6)
	// What the reporter agrees to (XEP-0377 §5); without it a report stays here.
	Origin     bool // forwarding to where the message came from
	ThirdParty bool // forwarding to others
	At         time.Time
}

// Bounds of one report.
const (
	maxReasonBytes = 256
	maxTextBytes   = 4096
	maxStanzas     = 20
)

// reasons are the labels of the metric, so that nobody can add to them.
var reasons = map[string]string{
	"urn:xmpp:reporting:spam":  "spam",
	"urn:xmpp:reporting:abuse": "abuse",
}

const (
	sqlReport = `INSERT INTO block_report (reporter, reported, reason, body, stanzas, to_origin, to_third, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING id`
	// The words are encrypted for their row, whose number is known then.
	sqlReportWords = `UPDATE block_report SET body = $1, key_id = $2 WHERE id = $3`
	// What is too old, and what is too much of one reporter.
	sqlReportsExpire = `DELETE FROM block_report WHERE created_at < $1`
	sqlReportsTrim   = `DELETE FROM block_report WHERE reporter = $1 AND id NOT IN (SELECT id FROM block_report WHERE reporter = $1 ORDER BY id DESC LIMIT $2)`
	sqlReportsForget = `DELETE FROM block_report WHERE reporter = $1`
	sqlReports       = `SELECT id, reporter, reported, reason, key_id, body, stanzas, to_origin, to_third, created_at FROM block_report WHERE id < $1 ORDER BY id DESC LIMIT $2`
)

// report stores the reports of a block. The block stands whatever becomes of
// them (XEP-0377 §6).
func (b *blocking) report(ctx context.Context, q *processor.IQ) {
	reports := b.reportsIn(q)
	if len(reports) == 0 {
		return
	}
	for _, r := range reports {
		label, ok := reasons[r.Reason]
		if !ok {
			label = "other"
		}
		b.reports.WithLabelValues(label).Inc()
		b.env.Log.Info("abuse reported", "reporter", r.Reporter.String(), "reported", r.Reported.String(), "reason", r.Reason, "stanzas", len(r.Stanzas))
	}
	if err := b.lists.saveReports(ctx, reports, b.cfg.Reports); err != nil {
		b.env.Log.Error("report not stored", "reporter", q.Owner.String(), "err", err)
	}
}

// reportsIn reads the reports of a block that has been checked already. One
// without a reason is none (XEP-0377 §4).
func (b *blocking) reportsIn(q *processor.IQ) []Report {
	var out []Report
	for el := range q.Query.Elements() {
		rep := el.Child(NSReporting, "report")
		if el.Name != (stanza.Name{Space: NS, Local: "item"}) || rep == nil || rep.Get("reason") == "" {
			continue
		}
		reported, err := jid.Parse(el.Get("jid"))
		if err != nil {
			continue
		}
		r := Report{Reporter: q.Owner, Reported: reported, Reason: cut(rep.Get("reason"), maxReasonBytes), At: b.env.Clock.Now()}
		for c := range rep.Elements() {
			switch c.Name {
			case stanza.Name{Space: NSReporting, Local: "text"}:
				if r.Text == "" {
					r.Text = cut(strings.TrimSpace(c.Text()), maxTextBytes)
				}
			case stanza.Name{Space: NSReporting, Local: "report-origin"}:
				r.Origin = true
			case stanza.Name{Space: NSReporting, Local: "third-party"}:
				r.ThirdParty = true
			case stanza.Name{Space: stanza.NSStanzaID, Local: "stanza-id"}:
				if len(r.Stanzas) < maxStanzas {
					r.Stanzas = append(r.Stanzas, cut(c.Get("id"), maxReasonBytes)+" "+cut(c.Get("by"), maxTextBytes))
				}
			}
		}
		if out = append(out, r); len(out) >= b.cfg.Reports.Max {
			break
		}
	}
	return out
}

// cut shortens s to at most n bytes, on a character's boundary.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

func (l *Lists) saveReports(ctx context.Context, reports []Report, keep Reports) error {
	return l.env.DB.Tx(ctx, func(tx storage.Tx) error {
		for _, r := range reports {
			var id int64
			if err := tx.QueryRow(ctx, sqlReport, r.Reporter.String(), r.Reported.String(), r.Reason, []byte{}, strings.Join(r.Stanzas, "\n"), r.Origin, r.ThirdParty, r.At.UnixMicro()).Scan(&id); err != nil {
				return fmt.Errorf("insert report: %w", err)
			}
			words, key := l.env.AtRest.Seal(&sealedReports, []byte(r.Text), id)
			if _, err := tx.Exec(ctx, sqlReportWords, words, key, id); err != nil {
				return fmt.Errorf("insert report: %w", err)
			}
		}
		if _, err := tx.Exec(ctx, sqlReportsExpire, l.env.Clock.Now().Add(-keep.Keep).UnixMicro()); err != nil {
			return fmt.Errorf("expire reports: %w", err)
		}
		if _, err := tx.Exec(ctx, sqlReportsTrim, reports[0].Reporter.String(), keep.Max); err != nil {
			return fmt.Errorf("trim reports: %w", err)
		}
		return nil
	})
}

// Reports returns up to limit reports that are older than the one with the id
// before, the newest first; before 0: the newest there are.
func (l *Lists) Reports(ctx context.Context, before int64, limit int) ([]Report, error) {
	if before <= 0 {
		before = 1<<63 - 1
	}
	out, err := storage.All(ctx, l.env.DB, l.scanReport, sqlReports, before, limit)
	if err != nil {
		return nil, fmt.Errorf("reports: %w", err)
	}
	return out, nil
}

// sealedReports is what of the reports is encrypted, when that is configured.
var sealedReports = atrest.Table{Name: "block_report", Row: []string{"id"}, Content: "body", KeyID: "key_id"}

func (l *Lists) scanReport(row storage.Row) (r Report, err error) {
	var reporter, reported, stanzas string
	var words []byte
	var at, key int64
	if err := row.Scan(&r.ID, &reporter, &reported, &r.Reason, &key, &words, &stanzas, &r.Origin, &r.ThirdParty, &at); err != nil {
		return r, err
	}
	if words, err = l.env.AtRest.Open(&sealedReports, key, words, r.ID); err != nil {
		return r, err
	}
	r.Text = string(words)
	if stanzas != "" {
		r.Stanzas = strings.Split(stanzas, "\n")
	}
	r.At = time.UnixMicro(at)
	if r.Reporter, err = jid.Parse(reporter); err != nil {
		return r, err
	}
	r.Reported, err = jid.Parse(reported)
	return r, err
}
