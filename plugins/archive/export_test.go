package archive

// Missed is what another node tells under plugins.Missed.
func (a *Archive) Missed(key string) { a.missed(key) }

// ReplayAtOnce is how many pages are read at the same time.
const ReplayAtOnce = replayAtOnce
