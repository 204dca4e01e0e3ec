package storage

// Stmt is a write that is prepared once and executed for many rows. Features
// declare theirs once, as values that never change.
type Stmt struct {
	Name string // for errors, "archive.insert"
	SQL  string // one statement with $1, $2, …

	// Idempotent: running it twice is the same as once (ON CONFLICT DO NOTHING
	// on a de-duplication key, a plain UPDATE to fixed values). A set of such
	// statements is repeated when the connection broke during the commit, so
	// that nobody knows whether it happened.
	Idempotent bool
	// Must: changing no row fails the set with ErrStale; for compare-and-set
	// and fencing epochs.
	Must bool
}

// WriteSet is what one session wants written, all or nothing: rows of prepared
// statements in order. The zero value is empty and ready. A set belongs to one
// goroutine, and to Commit until that returns.
type WriteSet struct {
	rows     []row
	args     []any // of all rows; one slice instead of one per row
	affected []int64
}

type row struct {
	stmt     *Stmt
	from, to int // in WriteSet.args
}

// Add appends a row. Arguments: nil, bool, integers, float64, string, []byte;
// a []byte must not change until Commit returned.
func (w *WriteSet) Add(s *Stmt, args ...any) {
	from := len(w.args)
	w.args = append(w.args, args...)
	w.rows = append(w.rows, row{s, from, len(w.args)})
}

// Len is the number of rows.
func (w *WriteSet) Len() int { return len(w.rows) }

// Merge appends the rows of other, which keeps its own.
func (w *WriteSet) Merge(other *WriteSet) {
	base := len(w.args)
	w.args = append(w.args, other.args...)
	for _, r := range other.rows {
		w.rows = append(w.rows, row{r.stmt, base + r.from, base + r.to})
	}
}

// Reset empties the set and keeps its memory.
func (w *WriteSet) Reset() {
	clear(w.args) // bodies of messages must not outlive the set
	clear(w.rows)
	w.rows, w.args, w.affected = w.rows[:0], w.args[:0], w.affected[:0]
}

// Affected is how many rows of the database the i-th row of the set changed;
// 0 says that ON CONFLICT DO NOTHING found a duplicate. Valid after a Commit
// that returned nil.
func (w *WriteSet) Affected(i int) int64 { return w.affected[i] }

// idempotent says whether the whole set may be written twice.
func (w *WriteSet) idempotent() bool {
	for _, r := range w.rows {
		if !r.stmt.Idempotent {
			return false
		}
	}
	return true
}

// values are the arguments of a row.
func (w *WriteSet) values(r row) []any { return w.args[r.from:r.to:r.to] }
