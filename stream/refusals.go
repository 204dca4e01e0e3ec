package stream

// Refusals are messages of a client that were refused, and whose errors it is not
// known to have got. Only the process that refused them can tell it, so no h that
// outlives the process counts the first of them, or what came behind it, as done:
// after a resumption elsewhere the client sends them again (D1). The zero value is
// none. It counts too many for open while some of the errors are acknowledged, and
// never too few.
type Refusals struct{ first, last uint64 } // places among what the client has sent

// Add notes one. Errors reach a client in the order of what they are about.
func (r *Refusals) Add(seq uint64) {
	if r.first == 0 || seq < r.first {
		r.first = seq
	}
	r.last = max(r.last, seq)
}

// Heard notes that the client has the errors of everything up to seq.
func (r *Refusals) Heard(seq uint64) {
	switch {
	case seq >= r.last:
		*r = Refusals{}
	case seq >= r.first:
		r.first = seq + 1
	}
}

// Open reports whether there are any.
func (r Refusals) Open() bool { return r.first != 0 }

// Below is how much of n may be counted as done.
func (r Refusals) Below(n uint64) uint64 {
	if r.first != 0 && n >= r.first {
		return r.first - 1
	}
	return n
}
